"""One prompt becomes one scored group: sample, verify, retry what the infrastructure failed at.

A response that cannot be judged is never a score of 0: after `max_attempts` the `VerifierError` leaves, and whoever asked drops the group.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rlvr.config import VerifierConfig
from rlvr.engines.protocol import Engine
from rlvr.seeding import derive_seed
from rlvr.types import Completion, Prompt, Rollout, RolloutGroup, Sampling
from verifiers.errors import VerifierError, VerifierTimeout
from verifiers.types import Problem, Verdict, Verifier


@dataclass(frozen=True, slots=True)
class Judge:
    """A verifier with its deadline and its number of attempts."""

    verifier: Verifier
    name: str
    timeout_seconds: float
    max_attempts: int

    @classmethod
    def of(cls, verifier: Verifier, config: VerifierConfig) -> Judge:
        return cls(verifier, config.name, config.timeout_seconds, config.max_attempts)

    async def __call__(self, problem: Problem, responses: Sequence[Completion]) -> list[Verdict]:
        """Return one verdict per response.

        Raises: VerifierError: every attempt failed, passed the deadline or gave something that is no verdict.
        """
        for attempt in range(1, self.max_attempts + 1):
            try:
                return await self._once(problem, responses)
            except VerifierError:
                if attempt == self.max_attempts:
                    raise
        raise AssertionError("max_attempts is at least 1")

    async def _once(self, problem: Problem, responses: Sequence[Completion]) -> list[Verdict]:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                verdicts = await self.verifier(problem, responses)
        except TimeoutError as error:
            raise VerifierTimeout(
                f"verifier '{self.name}' passed its deadline of {self.timeout_seconds:g} s on problem '{problem.id}'"
            ) from error
        except VerifierError:
            raise
        except Exception as error:  # The plug-in boundary: its bug must not look like a wrong answer, nor end the run by itself.
            raise VerifierError(f"verifier '{self.name}' raised {error!r} on problem '{problem.id}'") from error
        self._check(problem, responses, verdicts)
        return list(verdicts)

    def _check(self, problem: Problem, responses: Sequence[Completion], verdicts: object) -> None:
        if not isinstance(verdicts, Sequence) or len(verdicts) != len(responses):
            raise VerifierError(
                f"verifier '{self.name}' must return {len(responses)} verdicts for problem '{problem.id}', but returned {verdicts!r}"
            )
        for verdict in verdicts:
            if not isinstance(verdict, Verdict) or not math.isfinite(verdict.score):
                raise VerifierError(
                    f"verifier '{self.name}' returned {verdict!r} for problem '{problem.id}': it must be a Verdict with a finite score"
                )


@dataclass(frozen=True, slots=True)
class Collector:
    """Turns a place in the prompt stream into a group of scored rollouts; the same place and weights give the same group."""

    prompt_at: Callable[[int], Prompt]
    engine: Engine
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
        async with asyncio.TaskGroup() as tasks:
            sampled = tasks.create_task(self.engine.generate(prompt.token_ids, sampling))
            if self.greedy_baseline:
                greedy = tasks.create_task(self.engine.generate(prompt.token_ids, replace(sampling, temperature=0.0, num_samples=1)))
        completions = sampled.result()
        greedy_completions = greedy.result() if self.greedy_baseline else []
        verdicts = await self.judge(prompt.problem, [*completions, *greedy_completions])
        rollouts = [
            Rollout(prompt, completion, verdict)
            for completion, verdict in zip([*completions, *greedy_completions], verdicts, strict=True)
        ]
        return RolloutGroup(index, tuple(rollouts[: len(completions)]), rollouts[-1] if self.greedy_baseline else None)
