"""The verifier `weighted`: several verifiers judge one response and their scores are added up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verifiers.errors import BadOption, VerifierError
from verifiers.registry import build, near
from verifiers.types import Problem, Response, StepScore, Verdict, Verifier

PART_KEYS = ("verifier", "weight", "options", "name")


@dataclass(frozen=True, slots=True)
class Part:
    """One verifier of the sum; `name` is its key in `Verdict.parts`."""

    name: str
    weight: float
    verifier: Verifier


@dataclass(frozen=True, slots=True)
class Weighted:
    """Scores the sum of weight times score over `parts`; weights are used as given, and may be negative.

    Each part is a mapping with `verifier` (a name or dotted path), `weight` (1 by default), `options`, and `name` (the verifier's by
    default). `Verdict.parts` holds the unweighted scores. The *first* part decides outcome and extracted answer, so that accuracy stays a
    statement about the answer however the score is shaped: put the verifier of the answer first. Steps may come from one part only, and
    are weighted.
    """

    parts: Sequence[Mapping[str, Any]]
    _parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.parts, str | Mapping) or not self.parts:
            raise BadOption(
                f"verifier 'weighted': parts must be a list such as [{{verifier: exact_match, weight: 1.0}}], got {self.parts!r}"
            )
        parts = tuple(_read_part(index, part) for index, part in enumerate(self.parts))
        names = [part.name for part in parts]
        for name in names:
            if names.count(name) > 1:
                raise BadOption(f"verifier 'weighted': two parts are called {name!r}; give one of them its own `name`")
        object.__setattr__(self, "_parts", parts)

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        try:
            async with asyncio.TaskGroup() as tasks:
                judging = [tasks.create_task(part.verifier(problem, responses)) for part in self._parts]
        except ExceptionGroup as failures:  # One part that cannot judge is enough; callers know errors, not groups of them.
            raise failures.exceptions[0] from failures
        columns = [task.result() for task in judging]
        for part, column in zip(self._parts, columns, strict=True):
            if len(column) != len(responses):
                raise VerifierError(f"part {part.name!r} returned {len(column)} verdicts for {len(responses)} responses")
        return [self._combine(problem, row) for row in zip(*columns, strict=True)]

    def _combine(self, problem: Problem, verdicts: Sequence[Verdict]) -> Verdict:
        stepped = [part for part, verdict in zip(self._parts, verdicts, strict=True) if verdict.steps]
        if len(stepped) > 1:
            names = " and ".join(repr(part.name) for part in stepped)
            raise VerifierError(f"problem {problem.id!r}: parts {names} both score steps; only one part may")
        notes = [f"{part.name}: {verdict.explanation}" for part, verdict in zip(self._parts, verdicts, strict=True) if verdict.explanation]
        return Verdict(
            score=math.fsum(part.weight * verdict.score for part, verdict in zip(self._parts, verdicts, strict=True)),
            outcome=verdicts[0].outcome,
            parts={part.name: verdict.score for part, verdict in zip(self._parts, verdicts, strict=True)},
            steps=tuple(
                StepScore(step.end_char, part.weight * step.score)
                for part, verdict in zip(self._parts, verdicts, strict=True)
                for step in verdict.steps
            ),
            extracted=verdicts[0].extracted,
            explanation="; ".join(notes),
        )


def _read_part(index: int, part: Mapping[str, Any]) -> Part:
    place = f"verifier 'weighted': parts[{index}]"
    if not isinstance(part, Mapping):
        raise BadOption(f"{place} must be a mapping such as {{verifier: exact_match, weight: 1.0}}, got {part!r}")
    for key in part:
        if key not in PART_KEYS:
            raise BadOption(f"{place} has no {key!r}{near(str(key), PART_KEYS)}; it takes: {', '.join(PART_KEYS)}")
    if "verifier" not in part:
        raise BadOption(f"{place} names no `verifier`")
    weight = part.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise BadOption(f"{place}: weight={weight!r} is not a number")
    return Part(part.get("name", part["verifier"]), float(weight), build(part["verifier"], part.get("options", {})))
