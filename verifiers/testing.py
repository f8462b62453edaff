"""For authors of verifiers: a response to judge, and a check that a verifier keeps the contract."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from verifiers.types import FinishReason, Outcome, Problem, Response, StepScore, Verdict, Verifier


@dataclass(frozen=True, slots=True)
class FixedResponse:
    """A response with the given text."""

    text: str
    finish_reason: FinishReason = "stop"
    num_tokens: int = 1


SAMPLE_PROBLEM = Problem(id="sample", messages=({"role": "user", "content": "What is 2 + 2?"},), reference={"answer": "4"})

ODD_TEXTS = (
    "",
    " \n\t ",
    "\x00",
    "\ud800 a lone surrogate",
    "\u202e4\u202c",
    "</think><answer></answer>",
    "<answer><answer>4</answer>",
    r"\boxed{\boxed{4}",
    r"\boxed{" + "{" * 10_000,
    "1" * 10_000,
    "1e999999999",
    "the answer is " * 1_000,
    "(" * 10_000 + ")" * 10_000,
)
"""What a policy may write: nothing, control characters, unfinished markup, absurd nesting and sizes."""


def check_verifier(verifier: Verifier, problem: Problem = SAMPLE_PROBLEM, responses: Sequence[Response] = ()) -> None:
    """Raise AssertionError, naming the response, unless the verifier keeps the contract on `problem`.

    For `responses` and for odd texts, finished and cut off: one verdict each, in order, of the right types; none for none; the same
    verdicts in the other order for the responses in the other order; and never an error, whatever the text. Give a `problem` whose
    reference holds what the verifier reads. Runs its own event loop: call it from an ordinary test.
    """
    cases: list[Response] = [*responses, *(FixedResponse(text, reason) for reason in get_args(FinishReason) for text in ODD_TEXTS)]
    assert asyncio.run(verifier(problem, [])) == [], "no responses must give an empty list of verdicts"
    for case in cases:
        try:
            verdicts = asyncio.run(verifier(problem, [case]))
        except Exception as error:  # Boundary: a plug-in call.
            raise AssertionError(
                f"raised {error!r} on the response {_short(case)}: a strange text is a wrong answer, not an error"
            ) from error
        assert isinstance(verdicts, list) and len(verdicts) == 1, f"one response must give a list of one verdict, got {verdicts!r}"
        _check_verdict(verdicts[0], case)
    forward = asyncio.run(verifier(problem, cases))
    assert len(forward) == len(cases), f"{len(cases)} responses gave {len(forward)} verdicts"
    backward = asyncio.run(verifier(problem, cases[::-1]))
    for case, first, second in zip(cases, forward, backward[::-1], strict=True):
        assert first == second, (
            f"verdicts are not in the order of the responses, or not repeatable: {_short(case)} gave {first} and {second}"
        )


def _check_verdict(verdict: object, response: Response) -> None:
    place = f"the verdict on {_short(response)}"
    assert isinstance(verdict, Verdict), f"{place} must be a Verdict, got {verdict!r}"
    assert isinstance(verdict.score, int | float) and math.isfinite(verdict.score), f"{place} has the score {verdict.score!r}"
    assert verdict.outcome in get_args(Outcome), f"{place} has the outcome {verdict.outcome!r}; there are {', '.join(get_args(Outcome))}"
    assert verdict.extracted is None or isinstance(verdict.extracted, str), f"{place} has extracted={verdict.extracted!r}"
    assert isinstance(verdict.explanation, str), f"{place} has explanation={verdict.explanation!r}"
    for name, score in verdict.parts.items():
        assert isinstance(name, str) and math.isfinite(score), f"{place} has the part {name!r}: {score!r}"
    end = 0
    for step in verdict.steps:
        assert isinstance(step, StepScore) and math.isfinite(step.score), f"{place} has the step {step!r}"
        assert end <= step.end_char <= len(response.text), f"{place} has steps that do not ascend within the text: {step!r}"
        end = step.end_char


def _short(response: Response) -> str:
    text = response.text if len(response.text) <= 60 else response.text[:57] + "..."
    return f"{text!r} ({response.finish_reason})"
