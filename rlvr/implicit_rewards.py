"""Rewards of tokens from a model that learns them beside the policy, from the outcomes of whole completions (PRIME, arXiv:2502.01456).

Refuses scores outside [0, 1], which are no outcomes that a cross-entropy can learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.algorithm_settings import ImplicitRewardConfig
from rlvr.batch import MiniBatch, Totals
from rlvr.batching import build_microbatch, plan_microbatches
from rlvr.distributed import ALONE, Ranks
from rlvr.errors import ConfigError
from rlvr.exchange import WorkSplit
from rlvr.losses import ImplicitRewardObjective
from rlvr.policy.protocol import Policy, Term, UpdateResult
from rlvr.rollouts.samples import policy_sample
from rlvr.types import Rollout, RolloutGroup, TrainSample


@dataclass(frozen=True, slots=True)
class ImplicitRewards:
    """What a step got out of the model: for each group one tensor a completion, with a reward for each token that the policy wrote; and
    what its own update did."""

    token_rewards: tuple[tuple[Tensor, ...], ...]
    update: UpdateResult


class ImplicitRewardModel:
    """r(y_t) = beta * log(pi(y_t | y_<t) / pi_ref(y_t | y_<t)), at temperature 1: pi is the policy object given here, which must keep a
    reference. The sum over a completion is trained to be the logit of its outcome; equation 3 of the paper.

    Every completion counts, also one that is cut: whether the policy learns from it is another matter.
    """

    def __init__(
        self, policy: Policy, config: ImplicitRewardConfig, split: WorkSplit, *, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self._policy = policy
        self._config = config
        self._split = split
        self._device = device
        self._ranks = ranks
        self._objective = ImplicitRewardObjective(config.beta)

    def learn(self, groups: Sequence[RolloutGroup]) -> ImplicitRewards:
        """Take the rewards of a step and learn from its outcomes, in the configured order; a meeting of all ranks.

        Raises: ConfigError: a score is no outcome.
        """
        samples = [_labelled(rollout, group.index) for group in groups for rollout in group.rollouts]
        plan, minibatch = self._packed(samples)
        if self._config.update == "before":
            update = self._policy.update(Term(minibatch, self._objective))
            rewards = self._rewards(samples, plan, minibatch)
        else:
            rewards = self._rewards(samples, plan, minibatch)
            update = self._policy.update(Term(minibatch, self._objective))
        flat = iter(rewards)
        return ImplicitRewards(tuple(tuple(next(flat) for _ in group.rollouts) for group in groups), update)

    def _packed(self, samples: Sequence[TrainSample]) -> tuple[list[list[int]], MiniBatch]:
        """Lay out all samples with the reference's log-probs; the plan tells which sample each row of a micro-batch is."""
        shape = {"tokens_per_microbatch": self._split.tokens_per_microbatch, "share_prompts": self._split.share_prompts}
        needed = self._ranks.largest(len(plan_microbatches(samples, **shape)))
        plan = plan_microbatches(samples, **shape, min_microbatches=needed)
        build = [[samples[i] for i in rows] for rows in plan]
        microbatches = tuple(build_microbatch(rows, share_prompts=self._split.share_prompts, device=self._device) for rows in build)
        tokens, sequences = self._ranks.totals((sum(sum(sample.loss_mask) for sample in samples), len(samples)))
        totals = Totals(int(tokens), int(sequences), max_new_tokens=1)  # The objective is a mean over sequences.
        return plan, self._policy.annotate(MiniBatch(microbatches, totals), old=False, reference=True)

    def _rewards(self, samples: Sequence[TrainSample], plan: Sequence[Sequence[int]], minibatch: MiniBatch) -> list[Tensor]:
        """Return each sample's rewards of the tokens it counts, by the model as it is now."""
        rewards = [torch.zeros(sum(sample.loss_mask)) for sample in samples]
        for rows, microbatch in zip(plan, self._policy.annotate(minibatch, old=True, reference=False).microbatches, strict=True):
            assert microbatch.old_logprobs is not None and microbatch.reference_logprobs is not None
            values = self._config.beta * (microbatch.old_logprobs - microbatch.reference_logprobs)
            for row, own, mask in zip(rows, values.cpu(), microbatch.mask.cpu(), strict=True):
                rewards[row] = own[mask]
        return rewards


def _labelled(rollout: Rollout, group_index: int) -> TrainSample:
    """The completion with its outcome in the place of each token's advantage, as `ImplicitRewardObjective` reads it."""
    score = rollout.verdict.score
    if not 0 <= score <= 1:
        raise ConfigError(
            f"algorithm.advantage=implicit_process learns from outcomes between 0 and 1, and the verifier scored a completion of problem "
            f"'{rollout.prompt.problem.id}' with {score:g}: use a verifier of right and wrong, or one whose scores are shares of what is "
            "right"
        )
    return policy_sample(rollout, (score,) * rollout.completion.num_written, group_index=group_index)
