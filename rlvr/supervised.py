"""Learning from demonstrations: the supervised warm-up (`rlvr sft`), and the same as one more loss term beside the policy gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import device as Device

from rlvr.batch import MiniBatch
from rlvr.batching import pack, totals_of
from rlvr.distributed import ALONE, Ranks
from rlvr.losses import CrossEntropyObjective
from rlvr.policy.protocol import Policy, Term, UpdateResult
from rlvr.types import TrainSample


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """An endless, shuffled supply of demonstrations; batch i is always the same."""

    sample_at: Callable[[int], TrainSample]
    samples_per_step: int
    tokens_per_microbatch: int
    device: Device
    weight: float = 1.0
    ranks: Ranks = ALONE

    def minibatch(self, index: int) -> MiniBatch:
        """This rank's share of the demonstrations of step `index`, packed."""
        first = index * self.samples_per_step
        samples = [self.sample_at(first + offset) for offset in range(self.samples_per_step)]
        totals = totals_of(samples, max_new_tokens=max(len(sample.token_ids) for sample in samples))
        return pack(
            samples[self.ranks.team :: self.ranks.num_teams],
            totals=totals,
            tokens_per_microbatch=self.tokens_per_microbatch,
            share_prompts=False,
            device=self.device,
        )

    def term(self, index: int) -> Term:
        """The cross-entropy of step `index`, mean over its tokens."""
        return Term(self.minibatch(index), CrossEntropyObjective(), self.weight, temperature=1.0)


class SupervisedTrainer:
    """One optimizer step per batch of demonstrations."""

    def __init__(self, policy: Policy, demonstrations: Demonstrations, *, steps_done: int = 0) -> None:
        self._policy = policy
        self._demonstrations = demonstrations
        self.steps_done = steps_done

    def step(self) -> tuple[UpdateResult, int]:
        """Learn from the next batch; return what the update did and how many tokens it learned from."""
        term = self._demonstrations.term(self.steps_done)
        result = self._policy.update(term)
        self.steps_done += 1
        return result, term.minibatch.totals.tokens
