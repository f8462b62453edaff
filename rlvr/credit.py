"""From scored groups to train samples: rewards, advantages, and which tokens count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.advantages import GroupRewards, StepRewards, carries_gradient, compute_advantages
from rlvr.algorithms import AlgorithmConfig
from rlvr.distributed import ALONE, Ranks
from rlvr.errors import ConfigError
from rlvr.policy.protocol import Policy
from rlvr.rewards import is_informative, kl_token_penalties, shape_rewards
from rlvr.rollouts.samples import policy_sample
from rlvr.step_tokens import require_steps
from rlvr.types import Rollout, RolloutGroup, TrainSample


@dataclass(frozen=True, slots=True)
class CreditedGroup:
    """A group with one reward, one mean advantage and one train sample per rollout.

    `informative`: whether the group could teach anything. `penalty_kl`: each completion's KL from the reference, nats, where it is part
    of the reward. `implicit_rewards`: the sum of each completion's token rewards, where those are learned.
    """

    group: RolloutGroup
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    samples: tuple[TrainSample, ...]
    informative: bool
    penalty_kl: tuple[float, ...] = ()
    implicit_rewards: tuple[float, ...] = ()


def credit_groups(
    groups: Sequence[RolloutGroup],
    config: AlgorithmConfig,
    *,
    policy: Policy,
    kl_coefficient: float,
    max_new_tokens: int,
    token_rewards: Sequence[tuple[Tensor, ...]] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[CreditedGroup, ...]:
    """Shape the rewards, estimate advantages over each group (and the batch, of all ranks), lay out the samples.

    `token_rewards`: for each group what an implicit reward model says of its completions' tokens.
    A truncated completion keeps its place in the group's baseline; with `mask_truncated` it is not itself learned from.

    Raises: ConfigError: the advantage learns from scores or values of steps, and a group has none.
    """
    for group in groups:
        if config.step_advantage is not None:
            require_steps(group.rollouts, config.step_advantage)
        if config.needs_values and group.values is None:
            raise ConfigError(
                f"advantage={config.advantage} learns from values of steps, and the group at place {group.index} was sampled without them: "
                "dump groups with the advantage they are to be replayed with"
            )
    rewards = [shape_rewards(group.rollouts, config, max_new_tokens=max_new_tokens) for group in groups]
    penalties = _penalties(groups, config, policy, kl_coefficient)
    implicit = token_rewards or [None] * len(groups)
    seen = [
        GroupRewards(
            rewards=torch.tensor(group_rewards, dtype=torch.float64),
            lengths=torch.tensor([rollout.completion.num_written for rollout in group.rollouts]),
            greedy_reward=shape_rewards([group.greedy], config, max_new_tokens=max_new_tokens)[0] if group.greedy else None,
            token_penalties=group_penalties,
            scored=tuple(_is_scored(rollout, config) for rollout in group.rollouts),
            steps=_steps(group.rollouts),
            values=group.values.steps if group.values else None,
            token_rewards=group_implicit,
        )
        for group, group_rewards, group_penalties, group_implicit in zip(groups, rewards, penalties, implicit, strict=True)
    ]
    advantages = compute_advantages(seen, config, all_reduce_sum=ranks.total)
    return tuple(
        CreditedGroup(
            group=group,
            rewards=tuple(group_rewards),
            advantages=tuple(float(credit.mean()) for credit in credits),
            samples=_samples(group, credits, config),
            informative=carries_gradient(group_seen, config) if config.credits_steps else is_informative(group_rewards),
            penalty_kl=tuple(float(p.sum()) / kl_coefficient for p in group_penalties or ()),
            implicit_rewards=tuple(float(r.sum()) for r in group_seen.token_rewards or ()),
        )
        for group, group_rewards, group_seen, credits, group_penalties in zip(groups, rewards, seen, advantages, penalties, strict=True)
    )


def scores_are_informative(group: RolloutGroup, config: AlgorithmConfig) -> bool:
    """Return whether what the verifier said of a group's completions or, for an advantage of steps, of their steps, can teach anything.

    What length costs must not make a group look informative (DAPO arXiv:2503.14476, equation 11).
    """
    seen = GroupRewards(
        rewards=torch.tensor([rollout.verdict.score for rollout in group.rollouts], dtype=torch.float64),
        lengths=torch.tensor([rollout.completion.num_written for rollout in group.rollouts]),
        steps=_steps(group.rollouts),
        values=group.values.steps if group.values else None,
    )
    return carries_gradient(seen, config)


def _steps(rollouts: Sequence[Rollout]) -> tuple[StepRewards, ...] | None:
    """The steps of each completion; None where none has any."""
    if not any(rollout.step_ends for rollout in rollouts):
        return None
    return tuple(
        StepRewards(
            scores=torch.tensor([step.score for step in rollout.verdict.steps], dtype=torch.float64),
            ends=torch.tensor(rollout.step_ends, dtype=torch.int64),
        )
        for rollout in rollouts
    )


def _samples(group: RolloutGroup, credits: Sequence[Tensor], config: AlgorithmConfig) -> tuple[TrainSample, ...]:
    return tuple(
        policy_sample(
            rollout,
            credit.tolist(),
            group_index=group.index,
            scored=_is_scored(rollout, config),
        )
        for rollout, credit in zip(group.rollouts, credits, strict=True)
    )


def _is_scored(rollout: Rollout, config: AlgorithmConfig) -> bool:
    return not (config.mask_truncated and rollout.completion.finish_reason == "length")


def _penalties(
    groups: Sequence[RolloutGroup], config: AlgorithmConfig, policy: Policy, kl_coefficient: float
) -> list[tuple[Tensor, ...] | None]:
    """What each completion token costs in the reward for leaving the reference; None for each group where the KL is not in the reward."""
    if config.kl.where != "reward" or kl_coefficient == 0:
        return [None] * len(groups)
    samples = [
        policy_sample(rollout, (0.0,) * rollout.completion.num_written, group_index=group.index)
        for group in groups
        for rollout in group.rollouts
    ]
    current, reference = policy.logprobs(samples), policy.logprobs(samples, reference=True)
    flat = iter(zip(samples, current, reference, strict=True))
    penalties: list[tuple[Tensor, ...] | None] = []
    for group in groups:
        of_group = []
        for _ in group.rollouts:
            sample, ours, theirs = next(flat)
            written = torch.tensor(sample.loss_mask)
            of_group.append(
                kl_token_penalties(
                    torch.tensor(ours)[written], torch.tensor(theirs)[written], coefficient=kl_coefficient, estimator=config.kl.estimator
                )
            )
        penalties.append(tuple(of_group))
    return penalties
