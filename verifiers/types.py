"""What a verifier is given and what it answers: problem, response, verdict.

Standard library only. A verdict is not a reward: weighting, shaping and baselines happen elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "aborted"]
Outcome = Literal["correct", "incorrect", "partial", "unparseable", "timeout", "truncated"]
Message = Mapping[str, str]
"""A chat turn: {"role": "user" | "assistant" | "system", "content": text}."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with what a verifier needs to judge an answer; `reference` is never shown to the policy."""

    id: str
    messages: tuple[Message, ...]
    reference: Mapping[str, Any]
    tags: tuple[str, ...] = ()


class Response(Protocol):
    """What a verifier sees of a completion."""

    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> FinishReason: ...
    @property
    def num_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StepScore:
    """A process reward for `text[previous end_char : end_char]`."""

    end_char: int
    score: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement of one response. What could not be judged is a `VerifierError`, never a score of 0."""

    score: float
    outcome: Outcome
    parts: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[StepScore, ...] = ()
    extracted: str | None = None
    explanation: str = ""


class Verifier(Protocol):
    """Judges the responses of one group; a group at a time, so that models batch and rankings fit."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        """Return one verdict per response, in order.

        Raises: VerifierError: the infrastructure or the gold answer made judging impossible.
        """
        ...
