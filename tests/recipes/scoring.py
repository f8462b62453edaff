"""A verifier for models that can do nothing: scores differ between completions, so that there is something to learn."""

from __future__ import annotations

from collections.abc import Sequence

from verifiers.types import Problem, Response, Verdict


async def share_of_letters(problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
    """Score the share of letters among the characters."""
    return [
        Verdict(sum(character.isalpha() for character in response.text) / max(len(response.text), 1), "partial") for response in responses
    ]
