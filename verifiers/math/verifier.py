r"""The verifier `math`: the final answer means what the gold answer means.

Checks run in this process, where every stage is bounded by construction; what only a computer algebra system can settle (sums, integrals,
limits, very deep nesting) goes to a worker process with a hard deadline.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from verifiers.errors import GoldError
from verifiers.extraction import Extraction, check_extraction
from verifiers.gold import gold_answer, no_answer
from verifiers.math.answers import IN_PROCESS_SECONDS, TOO_DEEP, Reading, compare, read, unwrapped
from verifiers.math.final_answer import FinalAnswer, final_answer, narrower
from verifiers.math.quantities import Rules
from verifiers.math.scalars import Match
from verifiers.math.second_opinion import SecondOpinion
from verifiers.math.symbolic import Symbolic, needs_algebra
from verifiers.types import Problem, Response, Verdict
from verifiers.workers import DeadlineExceeded, WorkerCrashed, WorkerError


@dataclass(frozen=True, slots=True)
class Math:
    r"""Scores 1 where the final answer is equivalent to `reference["answer"]`, else 0.

    extraction: where the final answer is looked for; `lenient`, the default, in an order of trust, `strict` only in `\boxed{…}` and
    `<answer>…</answer>`, which is what training should use. tolerance: the relative error allowed of a numeric answer; 0 asks for exact
    answers, but for what docs/math-verifier.md says about decimals. deadline_seconds: for one check that needs computer algebra; past
    it the verdict is `timeout`, with score 0. second_opinion: `math_verify` also asks the package of that name (extra `math-verify`), which
    never decides: `Verdict.parts` holds its verdict and whether it disagrees, and the means over a step are the counts.

    Raises GoldError where the gold answer cannot be read: that is never a score.
    """

    extraction: Extraction = "lenient"
    tolerance: float = 0.0
    deadline_seconds: float = 2.0
    num_workers: int = 2
    second_opinion: str | None = None
    _symbolic: Symbolic = field(init=False, repr=False, compare=False)
    _second: SecondOpinion | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        check_extraction(self.extraction)
        for name, value in (("tolerance", self.tolerance), ("deadline_seconds", self.deadline_seconds)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name}={value!r} is not a number of at least 0")
        if self.deadline_seconds == 0:
            raise ValueError("deadline_seconds=0 leaves no time")
        if isinstance(self.num_workers, bool) or not isinstance(self.num_workers, int) or self.num_workers < 1:
            raise ValueError(f"num_workers={self.num_workers!r} is not a whole number of at least 1")
        if self.second_opinion not in (None, "math_verify"):
            raise ValueError(f"second_opinion={self.second_opinion!r} is not math_verify")
        object.__setattr__(self, "_symbolic", Symbolic(self.num_workers, self.deadline_seconds))
        if self.second_opinion is not None:
            object.__setattr__(self, "_second", SecondOpinion(self.num_workers, max(10.0, self.deadline_seconds)))

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        gold = read_gold(gold_answer(problem), problem.id)
        return list(await asyncio.gather(*(self._with_second_opinion(gold, response) for response in responses)))

    async def _with_second_opinion(self, gold: str, response: Response) -> Verdict:
        verdict = await self._judge(gold, response)
        if self._second is None or verdict.extracted is None:
            return verdict
        accepted = await self._second.accepts(gold, verdict.extracted)
        if accepted is None:
            return verdict
        agrees = accepted == (verdict.outcome == "correct")
        return replace(verdict, parts={"math_verify": float(accepted), "math_verify_disagrees": float(not agrees)})

    async def _judge(self, gold: str, response: Response) -> Verdict:
        answer = final_answer(response.text, self.extraction)
        if answer is None:
            return no_answer(response, self.extraction)
        candidate = readable_part(answer)
        if candidate is None:
            return _unparseable(answer)
        rules = Rules(self.tolerance)
        started = time.thread_time()
        result = compare_offered(gold, candidate, rules)
        late = time.thread_time() - started > IN_PROCESS_SECONDS
        if result is Match.UNKNOWN and (late or needs_algebra(gold, *candidate)):
            try:
                result = await self._symbolic.compare(gold, candidate, rules)
            except DeadlineExceeded:
                why = f"not decided within {self.deadline_seconds:g} s"
                return Verdict(0.0, "timeout", extracted=answer.text, explanation=why)
            except (WorkerCrashed, WorkerError) as error:  # It took all the memory it may have, or sympy fell over it.
                return Verdict(0.0, "timeout", extracted=answer.text, explanation=str(error)[:200])
        if result is Match.EQUAL:
            return Verdict(1.0, "correct", extracted=answer.text)
        if read(gold).tree is not None and read(candidate[0]).tree is None:
            return _unparseable(answer)
        how = "is not" if result is Match.DIFFERENT else "could not be shown to equal"
        return Verdict(0.0, "incorrect", extracted=answer.text, explanation=f"{answer.text[:80]!r} {how} {gold[:80]!r}")


def _unparseable(answer: FinalAnswer) -> Verdict:
    why = f"{answer.text[:80]!r} is no formula: {read(answer.text).problem or 'nothing is there'}"
    return Verdict(0.0, "unparseable", extracted=answer.text, explanation=why)


def read_gold(gold: str, problem_id: str) -> str:
    """Return the gold answer without what surrounds it: boxes, and the `####` of worked solutions.

    Raises: GoldError: it cannot be read.
    """
    offered = final_answer(gold, "strict") if "boxed" in gold or "<answer>" in gold else None
    text = offered.text if offered is not None else gold
    reading = read(text)
    if reading.tree is None and reading.problem != TOO_DEEP and not _only_words(reading):
        raise GoldError(
            f"problem {problem_id!r}: reference 'answer' {gold[:80]!r} cannot be read: {reading.problem or 'nothing is there'}; "
            "correct it, drop the problem, or use another verifier"
        )
    return text


def _only_words(reading: Reading) -> bool:
    """Words without any formula in them: compared letter by letter."""
    plain = unwrapped(reading.text)
    return reading.readable and len(plain) <= 300 and not any(character in "=<>^_+*\\/{}[]|&#" for character in plain)


def readable_part(answer: FinalAnswer) -> tuple[str, ...] | None:
    """The values offered, or what of an announced sentence can be read; None where nothing can."""
    if all(read(value).tree is not None or read(value).problem == TOO_DEEP for value in answer.values):
        return answer.values
    if len(answer.values) == 1:
        for part in narrower(answer):
            if read(part).tree is not None:
                return (part,)
    if all(read(value).readable for value in answer.values):
        return answer.values
    return None


def compare_offered(gold: str, values: tuple[str, ...], rules: Rules) -> Match:
    """Compare one value, or several offered side by side: those must all be the gold answer, or together make up its list."""
    if len(values) == 1:
        return compare(gold, values[0], rules)
    if all(compare(gold, value, rules) is Match.EQUAL for value in values):
        return Match.EQUAL
    return compare(gold, ", ".join(values), rules)
