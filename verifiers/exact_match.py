"""The verifier `exact_match`: the final answer, as text, equals the gold answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from verifiers.extraction import Extraction, check_extraction, extract
from verifiers.gold import gold_answer, no_answer
from verifiers.types import Problem, Response, Verdict


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Scores 1 where the final answer and `reference["answer"]` are the same text, else 0.

    Both are normalised first: Unicode NFC, runs of white space become one blank, blanks at the ends go. `ignore_case` compares case-folded.
    `strip` names further characters dropped at both ends, such as "$." for mathematics in dollar signs. `1,000` and `1000` stay different:
    that is what `numeric` is for.
    """

    extraction: Extraction = "strict"
    ignore_case: bool = False
    strip: str = ""

    def __post_init__(self) -> None:
        check_extraction(self.extraction)
        if not isinstance(self.ignore_case, bool):
            raise ValueError(f"ignore_case={self.ignore_case!r} is neither true nor false")
        if not isinstance(self.strip, str):
            raise ValueError(f"strip={self.strip!r} is not a text of characters to drop")

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        gold = self._normalise(gold_answer(problem))
        return [self._judge(gold, response) for response in responses]

    def _judge(self, gold: str, response: Response) -> Verdict:
        answer = extract(response.text, self.extraction)
        if answer is None:
            return no_answer(response, self.extraction)
        if self._normalise(answer) == gold:
            return Verdict(1.0, "correct", extracted=answer)
        return Verdict(0.0, "incorrect", extracted=answer, explanation=f"{answer!r} is not {gold!r}")

    def _normalise(self, text: str) -> str:
        text = " ".join(unicodedata.normalize("NFC", text).split())
        if self.strip:
            text = text.strip(self.strip + " ")
        return text.casefold() if self.ignore_case else text
