"""One prompt becomes one scored group: sample, verify, retry what the infrastructure failed at.

A response that cannot be judged is never a score of 0: after `max_attempts` the `VerifierError` leaves, and whoever asked drops the group.
Where a verifier scores steps, they are found among the tokens here, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace

from rlvr.errors import first_error
from rlvr.judge import Judge
from rlvr.rollouts.gathering import Gathering
from rlvr.rollouts.sampler import Sampler
from rlvr.rollouts.step_values import ValueEstimator
from rlvr.seeding import derive_seed
from rlvr.step_tokens import Decode, completion_step_ends, require_steps
from rlvr.types import Completion, Prompt, Rollout, RolloutGroup, Sampling
from verifiers.errors import VerifierError
from verifiers.types import Verdict


@dataclass(frozen=True, slots=True)
class Collector:
    """Turns a place in the prompt stream into a group of scored rollouts; the same place and weights give the same group.

    `decode`: how engines make text of tokens, special tokens left out. `step_advantage`: the name of the advantage that learns from steps,
    where one does. `values`: what tells the values of steps, where the advantage needs them; `gathering`: where groups wait for each other
    before that, if they should.
    """

    prompt_at: Callable[[int], Prompt]
    sampler: Sampler
    judge: Judge
    sampling: Sampling
    seed: int
    decode: Decode
    greedy_baseline: bool = False
    step_advantage: str | None = None
    values: ValueEstimator | None = None
    gathering: Gathering | None = None

    async def collect(self, index: int) -> RolloutGroup:
        """Sample and score the group at this place.

        Raises: VerifierError: the group could not be judged. ConfigError: it has no scores of steps, and the advantage needs them.
        """
        with self.gathering.taking_part(index) if self.gathering else nullcontext():
            group = await self._judged(index)
            return group if self.values is None else await self._with_values(group, self.values)

    async def _judged(self, index: int) -> RolloutGroup:
        prompt = self.prompt_at(index)
        sampling = replace(self.sampling, seed=derive_seed(self.seed, "rollout", index))
        async with first_failure(), asyncio.TaskGroup() as tasks:
            sampled = tasks.create_task(self.sampler.sample(prompt, sampling))
            if self.greedy_baseline:
                greedy = tasks.create_task(self.sampler.sample(prompt, replace(sampling, temperature=0.0, num_samples=1)))
        prompt, completions = sampled.result().prompt, sampled.result().completions
        greedy_completions = greedy.result().completions if self.greedy_baseline else []
        verdicts = await self.judge(prompt.problem, [*completions, *greedy_completions])
        judged = (prompt, [*completions, *greedy_completions], verdicts)
        has_steps = any(verdict.steps for verdict in verdicts)  # Decoding takes milliseconds, which the engine need not wait for.
        rollouts = await asyncio.to_thread(self._rollouts, *judged) if has_steps else self._rollouts(*judged)
        return RolloutGroup(index, tuple(rollouts[: len(completions)]), rollouts[-1] if self.greedy_baseline else None)

    async def _with_values(self, group: RolloutGroup, estimator: ValueEstimator) -> RolloutGroup:
        ends = await asyncio.to_thread(lambda: [estimator.step_ends(rollout.completion) for rollout in group.rollouts])
        if self.gathering is not None:
            await self.gathering.everyone(group.index)
        async with first_failure():
            return replace(group, values=await estimator.values_of(group, ends))

    def _rollouts(self, prompt: Prompt, completions: Sequence[Completion], verdicts: Sequence[Verdict]) -> list[Rollout]:
        """Put completions and verdicts together and find the steps' ends among the tokens."""
        try:
            rollouts = [
                Rollout(prompt, completion, verdict, completion_step_ends(completion, verdict.steps, self.decode))
                for completion, verdict in zip(completions, verdicts, strict=True)
            ]
        except ValueError as error:
            raise VerifierError(f"the steps scored for problem '{prompt.problem.id}' cannot be found among the tokens: {error}") from error
        if self.step_advantage is not None:
            require_steps(rollouts, self.step_advantage)
        return rollouts


@asynccontextmanager
async def first_failure() -> AsyncIterator[None]:
    """Raise the first failure of a task group as it is: what the caller tells apart is inside the group."""
    try:
        yield
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None
