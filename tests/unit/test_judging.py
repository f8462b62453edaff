"""`rlvr.judge`: whatever a verifier does, a score that is none never leaves it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from rlvr.judge import Judge
from verifiers.errors import VerifierError, VerifierTimeout
from verifiers.testing import FixedResponse
from verifiers.types import Problem, Response, StepScore, Verdict

PROBLEM = Problem("p", (), {})


@dataclass
class Says:
    """Returns what it was given, or raises it, one after the other; the last for ever."""

    answers: list[Any]

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def judge(*answers: Any, max_attempts: int = 1) -> list[Verdict]:
    return asyncio.run(Judge(Says(list(answers)), "says", 5.0, max_attempts)(PROBLEM, [FixedResponse("a")]))


FINE = Verdict(0.5, "partial", steps=(StepScore(1, -1),))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        [FINE, FINE],
        0.5,
        [0.5],
        [Verdict(math.nan, "correct")],
        [Verdict(math.inf, "correct")],
        [Verdict("7", "correct")],  # type: ignore[arg-type]
        [Verdict(None, "correct")],  # type: ignore[arg-type]
        [Verdict(10**400, "correct")],
        [Verdict(1.0, "correct", steps=(StepScore(1, math.nan),))],
        ValueError("oops"),
        VerifierError("away"),
    ],
    ids=str,
)
def test_what_is_no_verdict_is_an_error_and_is_asked_for_again(answer: Any) -> None:
    with pytest.raises(VerifierError, match="says|away"):
        judge(answer)
    assert judge(answer, [FINE], max_attempts=2) == [FINE]


def test_a_verifier_that_hangs_passes_its_deadline() -> None:
    @dataclass
    class Hangs:
        async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
            await asyncio.sleep(1000)
            raise AssertionError("nobody waits so long")

    with pytest.raises(VerifierTimeout, match="verifier 'slow' passed its deadline of 0.1 s on problem 'p'"):
        asyncio.run(Judge(Hangs(), "slow", 0.1, 2)(PROBLEM, [FixedResponse("a")]))
