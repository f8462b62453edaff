"""Judging with a deadline and retries: the boundary to a verifier, which is a plug-in and may do anything.

A response that cannot be judged is never a score of 0: the `VerifierError` leaves. Imports no torch, so that `rlvr verify` starts at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from rlvr.config import VerifierConfig
from verifiers.errors import VerifierError, VerifierTimeout
from verifiers.registry import build
from verifiers.types import Problem, Response, Verdict, Verifier


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

    @classmethod
    def shared(cls, config: VerifierConfig) -> Judge:
        """Return one judge for all who ask with equal settings: they share its containers and workers.

        Raises: RegistryError: there is no such verifier, or it refuses the options.
        """
        return _shared_judge(config.model_dump_json())

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
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

    async def _once(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
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

    def _check(self, problem: Problem, responses: Sequence[Response], verdicts: object) -> None:
        if not isinstance(verdicts, Sequence) or len(verdicts) != len(responses):
            raise VerifierError(
                f"verifier '{self.name}' must return {len(responses)} verdicts for problem '{problem.id}', but returned {verdicts!r}"
            )
        for verdict in verdicts:
            if not isinstance(verdict, Verdict) or not all(map(_is_finite, (verdict.score, *(step.score for step in verdict.steps)))):
                raise VerifierError(
                    f"verifier '{self.name}' returned {verdict!r:.500} for problem '{problem.id}': it must be a Verdict with a finite "
                    "score, also of each step"
                )


def _is_finite(score: object) -> bool:
    try:
        return math.isfinite(score)  # type: ignore[arg-type]
    except (TypeError, OverflowError):  # No number, or one that no float can hold.
        return False


@cache
def _shared_judge(settings: str) -> Judge:
    config = VerifierConfig.model_validate_json(settings)
    return Judge.of(build(config.name, config.options), config)
