"""The training step: groups in, a better policy out.

The trainer builds, logs, evaluates and saves nothing by itself; `rlvr.run` does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from rlvr.algorithms import AlgorithmConfig
from rlvr.batch import MiniBatch
from rlvr.batching import pack, totals_of
from rlvr.compute import ComputeThread
from rlvr.config import BatchConfig
from rlvr.credit import CreditedGroup, credit_groups
from rlvr.losses import PolicyObjective, build_objective
from rlvr.policy.protocol import Policy, Term, UpdateResult
from rlvr.rewards import KlController
from rlvr.rollouts.buffer import RolloutBuffer
from rlvr.rollouts.producer import Producer, ProducerCounts
from rlvr.supervised import Demonstrations
from rlvr.types import RolloutGroup
from rlvr.weight_sync import WeightSync


@dataclass(frozen=True, slots=True)
class StepResult:
    """All that happened in one step; `staleness` has one entry per completion, in policy versions. `sync_difference` is what the check
    of the weights found, nats; None where there was none."""

    step: int
    groups: tuple[CreditedGroup, ...]
    staleness: tuple[int, ...]
    updates: tuple[UpdateResult, ...]
    dropped: ProducerCounts
    kl_coefficient: float
    rollout_seconds: float
    update_seconds: float
    sync_difference: float | None = None


class Trainer:
    """Learns from groups, one step at a time. `steps_done` counts finished steps and is the version of the published weights."""

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
        demonstrations: Demonstrations | None = None,
        kl: KlController | None = None,
        steps_done: int = 0,
        off_policy: bool = False,
    ) -> None:
        """`off_policy`: whether rollouts may be of other weights than the policy before the step, or of an engine with other arithmetic."""
        self._policy = policy
        self._producer = producer
        self._buffer = buffer
        self._weight_sync = weight_sync
        self._compute = compute
        self._algorithm = algorithm
        self._batch = batch
        self._max_new_tokens = max_new_tokens
        self._device = device
        self._demonstrations = demonstrations
        self._off_policy = off_policy
        self.kl = kl or KlController.from_config(algorithm.kl)
        self.steps_done = steps_done

    async def step(self) -> StepResult:
        """Take the oldest groups, learn from them, publish the new weights, free the slots."""
        began = time.perf_counter()
        groups = await self._producer.take(self._batch.prompts_per_step)
        sampled = time.perf_counter()
        await self._weight_sync.before_update()
        credited, updates = await self._compute.run(self._learn, groups)
        await self._weight_sync.publish(self.steps_done + 1)
        await self._buffer.release(len(groups))
        staleness = tuple(self.steps_done - rollout.completion.first_version for group in groups for rollout in group.rollouts)
        self.steps_done += 1
        result = StepResult(
            step=self.steps_done,
            groups=credited,
            staleness=staleness,
            updates=updates,
            dropped=self._producer.take_counts(),
            kl_coefficient=self.kl.coefficient,
            rollout_seconds=sampled - began,
            update_seconds=time.perf_counter() - sampled,
            sync_difference=self._weight_sync.last_difference,
        )
        self.kl = self.kl.update(_observed_kl(result), num_completions=len(staleness))
        return result

    def _learn(self, groups: Sequence[RolloutGroup]) -> tuple[tuple[CreditedGroup, ...], tuple[UpdateResult, ...]]:
        """Rewards -> advantages -> pack -> old and reference log-probs -> one update per mini-batch; on the compute thread."""
        kl_coefficient = self.kl.coefficient
        credited = credit_groups(
            groups, self._algorithm, policy=self._policy, kl_coefficient=kl_coefficient, max_new_tokens=self._max_new_tokens
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
        return credited, tuple(updates)

    def _pack(self, credited: Sequence[CreditedGroup], objective: PolicyObjective) -> list[MiniBatch]:
        """Lay out what must be computed; samples without advantage count in the totals but are left out where nothing else acts on them."""
        samples = [sample for group in credited for sample in group.samples]
        totals = totals_of(samples, max_new_tokens=self._max_new_tokens)
        if objective.skips_zero_advantage:
            samples = [sample for sample in samples if any(sample.advantages)]
        return pack(
            samples,
            totals=totals,
            num_minibatches=self._batch.minibatches_per_step,
            tokens_per_microbatch=self._batch.tokens_per_microbatch,
            share_prompts=self._batch.share_prompts,
            device=self._device,
        )

    def _supervised_terms(self, index: int) -> list[Term]:
        if self._demonstrations is None:
            return []
        return [self._demonstrations.term(self.steps_done * self._batch.minibatches_per_step + index)]


def _observed_kl(result: StepResult) -> float:
    """Mean KL from the reference, nats per completion: as the rewards were charged for it, or as the loss saw it; 0 where neither looks."""
    charged = [kl for credited in result.groups for kl in credited.penalty_kl]
    if charged:
        return fmean(charged)
    mean_tokens = fmean(rollout.completion.num_tokens for credited in result.groups for rollout in credited.group.rollouts)
    return fmean(update.stats.get("reference_kl", 0.0) for update in result.updates) * mean_tokens
