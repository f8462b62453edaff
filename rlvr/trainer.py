"""The training step: groups in, a better policy out.

The trainer builds, logs, evaluates and saves nothing by itself; `rlvr.run` does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from rlvr.algorithms import AlgorithmConfig
from rlvr.batch import MiniBatch, Totals
from rlvr.batching import pack, plan_microbatches, split_evenly, totals_of
from rlvr.compute import ComputeThread
from rlvr.config import BatchConfig
from rlvr.credit import CreditedGroup, credit_groups
from rlvr.distributed import ALONE, Ranks
from rlvr.exchange import WorkSplit, share_out
from rlvr.implicit_rewards import ImplicitRewardModel
from rlvr.losses import PolicyObjective, build_objective
from rlvr.policy.protocol import Policy, Term, UpdateResult
from rlvr.rewards import KlController
from rlvr.rollouts.buffer import RolloutBuffer
from rlvr.rollouts.producer import Producer, ProducerCounts
from rlvr.supervised import Demonstrations
from rlvr.types import RolloutGroup, TrainSample
from rlvr.weight_sync import WeightSync


@dataclass(frozen=True, slots=True)
class StepResult:
    """All that happened in one step; `staleness` has one entry per completion, in policy versions. `sync_difference` is what the check
    of the weights found, nats; None where there was none. `implicit_update` is the implicit reward model's, where there is one."""

    step: int
    groups: tuple[CreditedGroup, ...]
    staleness: tuple[int, ...]
    updates: tuple[UpdateResult, ...]
    dropped: ProducerCounts
    kl_coefficient: float
    rollout_seconds: float
    update_seconds: float
    sync_difference: float | None = None
    implicit_update: UpdateResult | None = None

    @staticmethod
    def of_all(results: Sequence[StepResult]) -> StepResult:
        """One step of several ranks, as one process would have seen it; the groups in the order of their prompts."""
        if len(results) == 1:
            return results[0]
        behind = {id(credited): lag for result in results for credited, lag in zip(result.groups, _by_group(result), strict=True)}
        groups = sorted((credited for result in results for credited in result.groups), key=lambda credited: credited.group.index)
        rollout_seconds = max(result.rollout_seconds for result in results)
        differences = [result.sync_difference for result in results if result.sync_difference is not None]
        return replace(
            results[0],
            groups=tuple(groups),
            staleness=tuple(lag for credited in groups for lag in behind[id(credited)]),
            dropped=sum((result.dropped for result in results[1:]), results[0].dropped),
            rollout_seconds=rollout_seconds,
            # The others wait in the update for whoever sampled longest.
            update_seconds=max(result.rollout_seconds + result.update_seconds for result in results) - rollout_seconds,
            sync_difference=max(differences, default=None),
        )

    def without_samples(self) -> StepResult:
        """What is worth telling the main rank: everything but the samples, which repeat their groups."""
        return replace(self, groups=tuple(replace(credited, samples=()) for credited in self.groups))


def _by_group(result: StepResult) -> list[tuple[int, ...]]:
    """The staleness of each group's completions."""
    places = iter(result.staleness)
    return [tuple(next(places) for _ in credited.group.rollouts) for credited in result.groups]


class Trainer:
    """Learns from groups, one step at a time. `steps_done` counts finished steps and is the version of the published weights.

    With several ranks each has a trainer with its own share of the groups; they step together.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        producer: Producer,
        buffer: RolloutBuffer,
        weight_sync: WeightSync,
        compute: ComputeThread,
        algorithm: AlgorithmConfig,
        batch: BatchConfig,
        max_new_tokens: int,
        device: torch.device,
        work_split: WorkSplit,
        ranks: Ranks = ALONE,
        balance: bool = True,
        demonstrations: Demonstrations | None = None,
        implicit_rewards: ImplicitRewardModel | None = None,
        kl: KlController | None = None,
        steps_done: int = 0,
        off_policy: bool = False,
    ) -> None:
        """`balance`: whether ranks even out their work. `off_policy`: whether rollouts may be of other weights than the policy before the
        step, or of an engine with other arithmetic."""
        self._policy = policy
        self._producer = producer
        self._buffer = buffer
        self._weight_sync = weight_sync
        self._compute = compute
        self._algorithm = algorithm
        self._batch = batch
        self._max_new_tokens = max_new_tokens
        self._device = device
        self._work_split = work_split
        self._ranks = ranks
        self._balance = balance
        self._demonstrations = demonstrations
        self._implicit_rewards = implicit_rewards
        self._off_policy = off_policy
        self.kl = kl or KlController.from_config(algorithm.kl)
        self.steps_done = steps_done

    async def step(self) -> StepResult:
        """Take the oldest groups, learn from them, publish the new weights, free the slots."""
        began = time.perf_counter()
        groups = await self._producer.take(self._batch.prompts_per_step // self._ranks.size)
        sampled = time.perf_counter()
        await self._weight_sync.before_update()
        learned = await self._compute.run(self._learn, groups)
        await self._weight_sync.publish(self.steps_done + 1)
        await self._buffer.release(len(groups))
        staleness = tuple(self.steps_done - rollout.completion.first_version for group in groups for rollout in group.rollouts)
        self.steps_done += 1
        result = StepResult(
            step=self.steps_done,
            groups=learned.groups,
            staleness=staleness,
            updates=learned.updates,
            dropped=self._producer.take_counts(),
            kl_coefficient=self.kl.coefficient,
            rollout_seconds=sampled - began,
            update_seconds=time.perf_counter() - sampled,
            sync_difference=self._weight_sync.last_difference,
            implicit_update=learned.implicit_update,
        )
        self.kl = self.kl.update(learned.observed_kl, num_completions=len(staleness) * self._ranks.size)
        return result

    def _learn(self, groups: Sequence[RolloutGroup]) -> _Learned:
        """Implicit rewards, where they are learned -> rewards -> advantages -> pack -> old and reference log-probs -> one update per
        mini-batch; on the compute thread."""
        kl_coefficient = self.kl.coefficient
        implicit = self._implicit_rewards.learn(groups) if self._implicit_rewards is not None else None
        credited = credit_groups(
            groups,
            self._algorithm,
            policy=self._policy,
            kl_coefficient=kl_coefficient,
            max_new_tokens=self._max_new_tokens,
            token_rewards=implicit.token_rewards if implicit is not None else None,
            ranks=self._ranks,
        )
        objective = build_objective(self._algorithm, kl_coefficient=kl_coefficient, off_policy=self._off_policy)
        minibatches = self._pack(credited, objective)
        # With a single update the old log-probs are the current ones, detached: the ratio is exactly 1 and no forward is spent on them.
        minibatches = [
            self._policy.annotate(minibatch, old=len(minibatches) > 1, reference=objective.needs_reference) for minibatch in minibatches
        ]
        updates = [
            self._policy.update(Term(minibatch, objective), *self._supervised_terms(index)) for index, minibatch in enumerate(minibatches)
        ]
        observed_kl = self._observed_kl(credited, updates)
        return _Learned(credited, tuple(updates), observed_kl, implicit.update if implicit is not None else None)

    def _pack(self, credited: Sequence[CreditedGroup], objective: PolicyObjective) -> list[MiniBatch]:
        """Lay out what must be computed; samples without advantage count in the totals but are left out where nothing else acts on them."""
        parts = split_evenly([sample for group in credited for sample in group.samples], self._batch.minibatches_per_step)
        totals = [self._totals(part) for part in parts]
        if objective.skips_zero_advantage:
            parts = [[sample for sample in part if any(sample.advantages)] for part in parts]
        parts = share_out(parts, self._ranks, self._work_split, balance=self._balance)
        return [self._pack_one(part, of_all) for part, of_all in zip(parts, totals, strict=True)]

    def _totals(self, part: Sequence[TrainSample]) -> Totals:
        """Count over all ranks, before the first forward."""
        own = totals_of(part, max_new_tokens=self._max_new_tokens)
        tokens, sequences = self._ranks.totals((own.tokens, own.sequences))
        return Totals(int(tokens), int(sequences), own.max_new_tokens)

    def _pack_one(self, samples: Sequence[TrainSample], totals: Totals) -> MiniBatch:
        """Lay out one mini-batch in as many micro-batches as the rank with the most needs."""
        split = self._work_split
        shape = {"tokens_per_microbatch": split.tokens_per_microbatch, "share_prompts": split.share_prompts}
        needed = self._ranks.largest(len(plan_microbatches(samples, **shape)))
        return pack(samples, totals=totals, min_microbatches=needed, device=self._device, **shape)

    def _observed_kl(self, credited: Sequence[CreditedGroup], updates: Sequence[UpdateResult]) -> float:
        """Mean KL from the reference over all ranks' completions, nats: as the rewards were charged for it, or as the loss saw it.

        0 where neither looks.
        """
        charged = [kl for group in credited for kl in group.penalty_kl]
        rollouts = [rollout for group in credited for rollout in group.group.rollouts]
        num_tokens = sum(rollout.completion.num_tokens for rollout in rollouts)
        sum_charged, num_charged, tokens, completions = self._ranks.totals((sum(charged), len(charged), num_tokens, len(rollouts)))
        if num_charged:
            return sum_charged / num_charged
        return fmean(update.stats.get("reference_kl", 0.0) for update in updates) * tokens / completions

    def _supervised_terms(self, index: int) -> list[Term]:
        if self._demonstrations is None:
            return []
        return [self._demonstrations.term(self.steps_done * self._batch.minibatches_per_step + index)]


@dataclass(frozen=True, slots=True)
class _Learned:
    """What the compute thread did of a step."""

    groups: tuple[CreditedGroup, ...]
    updates: tuple[UpdateResult, ...]
    observed_kl: float
    implicit_update: UpdateResult | None
