"""Several verifiers and one response.

`weighted` adds their scores up; `gated` pays the first one's only where all others agree; `first_conclusive` asks one after the other until
one can tell; `by_tag` chooses by the problem's tags; `audited` pays the first one's and lets the second one look on; `with_steps` gives the
first one's verdict the steps that the second one scored.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        object.__setattr__(self, "_parts", _read_parts("weighted", self.parts))

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [self._combine(problem, row) for row in await _judge(self._parts, problem, responses)]

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


@dataclass(frozen=True, slots=True)
class Gated:
    """Scores what the first of `parts` scores where every other part says `correct`, else 0.

    Right answer *and* right form, for example: `[{verifier: exact_match}, {verifier: format}]`. Parts are as for `weighted`, without
    weights. Where a gate is shut the outcome is the first shut gate's. `Verdict.parts` holds every part's score.
    """

    parts: Sequence[Mapping[str, Any]]
    _parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", _without_weights("gated", self.parts))

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [self._combine(row) for row in await _judge(self._parts, problem, responses)]

    def _combine(self, verdicts: Sequence[Verdict]) -> Verdict:
        first = verdicts[0]
        scores = {part.name: verdict.score for part, verdict in zip(self._parts, verdicts, strict=True)}
        for part, verdict in zip(self._parts[1:], verdicts[1:], strict=True):
            if verdict.outcome != "correct":
                shut = f"{part.name}: {verdict.explanation or verdict.outcome}"
                return Verdict(0.0, verdict.outcome, parts=scores, extracted=first.extracted, explanation=shut)
        return replace(first, parts=scores)


@dataclass(frozen=True, slots=True)
class FirstConclusive:
    """Gives the verdict of the first of `parts` that can tell: the first outcome other than `unparseable`.

    A cheap strict verifier first, a lenient or a model-based one for what it could not read. Where none can tell, the first part's verdict
    stands. A part is asked only about the responses that are still open. A part that fails with an error ends the matter, unless
    `skip_errors` lets the next one try; the last one's error always counts. Parts are as for `gated`.
    """

    parts: Sequence[Mapping[str, Any]]
    skip_errors: bool = False
    _parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", _without_weights("first_conclusive", self.parts))

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        verdicts: list[Verdict | None] = [None] * len(responses)
        undecided = list(range(len(responses)))
        for part in self._parts:
            last = part is self._parts[-1]
            try:
                (column,) = await _columns([part], problem, [responses[index] for index in undecided])
            except VerifierError:
                if last or not self.skip_errors:
                    raise
                continue
            for index, verdict in zip(undecided, column, strict=True):
                if verdicts[index] is None or verdict.outcome != "unparseable":
                    verdicts[index] = replace(verdict, parts={**verdict.parts, part.name: verdict.score})
            undecided = [index for index, verdict in zip(undecided, column, strict=True) if verdict.outcome == "unparseable"]
            if not undecided:
                break
        return [verdict for verdict in verdicts if verdict is not None]


@dataclass(frozen=True, slots=True)
class ByTag:
    """Judges each problem with the verifier of its tag: one run on mathematics, code and choices.

    `routes` is a list of `{tag, verifier, options}`; the first whose tag the problem has judges it. `default` is `{verifier, options}` for
    all others; without it a problem with no known tag is an error that names it.
    """

    routes: Sequence[Mapping[str, Any]]
    default: Mapping[str, Any] | None = None
    _routes: tuple[tuple[str, Part], ...] = field(init=False, repr=False, compare=False)
    _default: Part | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.routes, str | Mapping) or not self.routes:
            raise BadOption(f"verifier 'by_tag': routes must be a list such as [{{tag: math, verifier: math}}], got {self.routes!r}")
        routes = []
        for index, route in enumerate(self.routes):
            place = f"verifier 'by_tag': routes[{index}]"
            if not isinstance(route, Mapping) or not isinstance(route.get("tag"), str):
                raise BadOption(f"{place} must be a mapping such as {{tag: math, verifier: math, options: {{}}}}, got {route!r}")
            routes.append((route["tag"], _read_part(place, {key: value for key, value in route.items() if key != "tag"})))
        object.__setattr__(self, "_routes", tuple(routes))
        default = None if self.default is None else _read_part("verifier 'by_tag': default", self.default)
        object.__setattr__(self, "_default", default)

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        part = next((part for tag, part in self._routes if tag in problem.tags), self._default)
        if part is None:
            known = ", ".join(tag for tag, _ in self._routes)
            has = ", ".join(problem.tags) or "none"
            raise VerifierError(f"problem {problem.id!r} has the tags {has}, and the routes know {known}; add a route or a default")
        (column,) = await _columns([part], problem, responses)
        return column


@dataclass(frozen=True, slots=True)
class Audited:
    """Pays what the first of two `parts` scores; the second, the auditor, judges the same responses and pays nothing.

    For rewards that are models: what the policy learns to get out of a wrong one shows as a gap between it and a verifier that the policy
    is not trained on. `Verdict.parts` gains `audit`, the auditor's score, and `audit_gap`, the score less the auditor's; a run reports the
    means as `verdict/audit` and `verdict/audit_gap`, and `guards.max_audit_gap` ends it. Where the auditor cannot judge, or takes longer
    than `auditor_seconds`, they are missing and nothing else is lost; `audited` is 1 where it judged, else 0. Parts are as for `gated`.
    """

    parts: Sequence[Mapping[str, Any]]
    auditor_seconds: float = 30.0
    """Less than the deadline of the whole, `verifier.timeout_seconds`."""
    _parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _without_weights("audited", self.parts)
        if len(parts) != 2:
            raise BadOption(f"verifier 'audited': parts must be two, the one that pays and its auditor, got {len(parts)}")
        if not self.auditor_seconds > 0:
            raise BadOption(f"verifier 'audited': auditor_seconds={self.auditor_seconds!r} must be above 0")
        object.__setattr__(self, "_parts", parts)

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        paying, auditor = self._parts
        looking_on = asyncio.ensure_future(self._audit(auditor, problem, responses))
        try:
            [verdicts] = await _columns([paying], problem, responses)
            audits = await looking_on
        finally:
            looking_on.cancel()
        if audits is None:
            return [replace(verdict, parts={**verdict.parts, "audited": 0.0}) for verdict in verdicts]
        return [
            replace(verdict, parts={**verdict.parts, "audited": 1.0, "audit": audit, "audit_gap": verdict.score - audit})
            for verdict, audit in zip(verdicts, audits, strict=True)
        ]

    async def _audit(self, auditor: Part, problem: Problem, responses: Sequence[Response]) -> list[float] | None:
        try:
            async with asyncio.timeout(self.auditor_seconds):
                [audits] = await _columns([auditor], problem, responses)
            scores = [audit.score for audit in audits]
            return scores if all(map(math.isfinite, scores)) else None
        except Exception:  # Boundary: a plug-in that pays nothing. The share that it judged is a metric.
            return None


@dataclass(frozen=True, slots=True)
class WithSteps:
    """Gives the first of two `parts` the last word on the response, and the second one on its steps.

    For an outcome verifier beside a process reward model: score, outcome and answer are the first's, `Verdict.steps` the second's, and how
    they are weighed is the algorithm's business (`algorithm.process`). `Verdict.parts` gains `audit`, the outcome's score, and `audit_gap`,
    the second's score less it, as in `audited`: a process reward model that likes wrong answers shows. Parts are as for `gated`.
    """

    parts: Sequence[Mapping[str, Any]]
    _parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _without_weights("with_steps", self.parts)
        if len(parts) != 2:
            raise BadOption(f"verifier 'with_steps': parts must be two, of the outcome and of the steps, got {len(parts)}")
        object.__setattr__(self, "_parts", parts)

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [self._combine(problem, *row) for row in await _judge(self._parts, problem, responses)]

    def _combine(self, problem: Problem, outcome: Verdict, process: Verdict) -> Verdict:
        if outcome.steps:
            raise VerifierError(f"problem {problem.id!r}: part {self._parts[0].name!r} scores steps, which the second part is asked for")
        notes = [f"{part.name}: {verdict.explanation}" for part, verdict in zip(self._parts, (outcome, process), strict=True)]
        gap = {"audit": outcome.score, "audit_gap": process.score - outcome.score}
        return replace(outcome, steps=process.steps, parts={**outcome.parts, **gap}, explanation="; ".join(notes))


async def _judge(parts: Sequence[Part], problem: Problem, responses: Sequence[Response]) -> list[tuple[Verdict, ...]]:
    """Ask all parts at once; return, for each response, one verdict per part."""
    return list(zip(*await _columns(parts, problem, responses), strict=True))


async def _columns(parts: Sequence[Part], problem: Problem, responses: Sequence[Response]) -> list[list[Verdict]]:
    """Ask all parts at once; return, for each part, one verdict per response."""
    try:
        async with asyncio.TaskGroup() as tasks:
            judging = [tasks.create_task(part.verifier(problem, responses)) for part in parts]
    except ExceptionGroup as failures:  # One part that cannot judge is enough; callers know errors, not groups of them.
        raise failures.exceptions[0] from failures
    columns = [task.result() for task in judging]
    for part, column in zip(parts, columns, strict=True):
        if len(column) != len(responses):
            raise VerifierError(f"part {part.name!r} returned {len(column)} verdicts for {len(responses)} responses")
    return columns


def _without_weights(kind: str, given: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    parts = _read_parts(kind, given)
    for part, written in zip(parts, given, strict=True):
        if "weight" in written:
            raise BadOption(f"verifier {kind!r}: part {part.name!r} has a weight, but nothing is added up; use 'weighted' for a sum")
    return parts


def _read_parts(kind: str, given: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    if isinstance(given, str | Mapping) or not given:
        raise BadOption(f"verifier {kind!r}: parts must be a list such as [{{verifier: exact_match}}, {{verifier: format}}], got {given!r}")
    parts = tuple(_read_part(f"verifier {kind!r}: parts[{index}]", part) for index, part in enumerate(given))
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise BadOption(f"verifier {kind!r}: two parts are called {name!r}; give one of them its own `name`")
    return parts


def _read_part(place: str, part: Mapping[str, Any]) -> Part:
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
