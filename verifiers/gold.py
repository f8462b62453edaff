"""Reads what a verifier needs out of a problem's reference, or says which problem lacks it."""

from __future__ import annotations

from verifiers.errors import GoldError
from verifiers.types import Problem, Response, Verdict


def gold_answer(problem: Problem, key: str = "answer") -> str:
    """Return the gold answer as text, stripped; a number is written out.

    Raises: GoldError: the reference has no such key, or it holds nothing, or no text or number.
    """
    if key not in problem.reference:
        there = ", ".join(map(repr, problem.reference)) or "nothing"
        raise GoldError(
            f"problem {problem.id!r}: the reference has no {key!r}, only {there}; map it with data.fields.answer or data.fields.reference"
        )
    value = problem.reference[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise GoldError(f"problem {problem.id!r}: reference {key!r} must be text or a number, got {value!r}")
    text = str(value).strip()
    if not text:
        raise GoldError(f"problem {problem.id!r}: reference {key!r} is empty")
    return text


def no_answer(response: Response, looked_for: str) -> Verdict:
    """The verdict on a response in which no answer was found: cut off before it could come, or simply not there."""
    if response.finish_reason == "length":
        return Verdict(0.0, "truncated", explanation=f"cut off after {response.num_tokens} tokens with no answer ({looked_for})")
    return Verdict(0.0, "unparseable", explanation=f"no answer found ({looked_for})")
