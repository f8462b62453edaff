"""One prompt becomes one scored group: sample, verify, retry what the infrastructure failed at.

A response that cannot be judged is never a score of 0: after `max_attempts` the `VerifierError` leaves, and whoever asked drops the group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from rlvr.errors import first_error
from rlvr.judge import Judge
from rlvr.rollouts.sampler import Sampler
from rlvr.seeding import derive_seed
from rlvr.types import Prompt, Rollout, RolloutGroup, Sampling


@dataclass(frozen=True, slots=True)
class Collector:
    """Turns a place in the prompt stream into a group of scored rollouts; the same place and weights give the same group."""

    prompt_at: Callable[[int], Prompt]
    sampler: Sampler
    judge: Judge
    sampling: Sampling
    seed: int
    greedy_baseline: bool = False

    async def collect(self, index: int) -> RolloutGroup:
        """Sample and score the group at this place.

        Raises: VerifierError: the group could not be judged.
        """
        prompt = self.prompt_at(index)
        sampling = replace(self.sampling, seed=derive_seed(self.seed, "rollout", index))
        async with first_failure(), asyncio.TaskGroup() as tasks:
            sampled = tasks.create_task(self.sampler.sample(prompt, sampling))
            if self.greedy_baseline:
                greedy = tasks.create_task(self.sampler.sample(prompt, replace(sampling, temperature=0.0, num_samples=1)))
        prompt, completions = sampled.result().prompt, sampled.result().completions
        greedy_completions = greedy.result().completions if self.greedy_baseline else []
        verdicts = await self.judge(prompt.problem, [*completions, *greedy_completions])
        rollouts = [
            Rollout(prompt, completion, verdict) for completion, verdict in zip([*completions, *greedy_completions], verdicts, strict=True)
        ]
        return RolloutGroup(index, tuple(rollouts[: len(completions)]), rollouts[-1] if self.greedy_baseline else None)


@asynccontextmanager
async def first_failure() -> AsyncIterator[None]:
    """Raise the first failure of a task group as it is: what the caller tells apart is inside the group."""
    try:
        yield
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None
