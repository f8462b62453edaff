r"""The verifier `multiple_choice`: the final answer names the right choice, by its letter or by its text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifiers.errors import GoldError
from verifiers.extraction import Extraction, check_extraction, extract
from verifiers.gold import gold_answer, no_answer
from verifiers.types import Problem, Response, Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WRAPPING = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boxed|textnormal)\s{0,4}\{([^{}]{0,2000})\}")
LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is)?\s*:?\s*)?\(?\s*([A-Za-z])\s*\)?\s*(?:$|[.):,-]+\s*(.*)$|\s+(.*)$)",
    re.DOTALL | re.IGNORECASE,
)
SET_APART = re.compile(r"[A-Za-z]\s*[.):,-]")
SEVERAL = re.compile(r"\(?\b[A-Za-z]\b\)?\s*(?:,|/|&|\bor\b|\band\b)\s*\(?\b[A-Za-z]\b\)?(?:\W|$)")


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    r"""Scores 1 where the final answer is the choice `reference["answer"]`, else 0.

    The gold answer is a letter (`B`, `(B)`, `\text{(B)}`) or, where `reference["choices"]` is a list of texts or a mapping of letters to
    texts, one of the texts. The response may give the letter, with or without brackets and the choice's text, or the text alone where
    `choices` are known. Several letters are wrong, and so is a letter with the text of another choice.
    """

    extraction: Extraction = "strict"

    def __post_init__(self) -> None:
        check_extraction(self.extraction)

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        choices = _choices(problem)
        gold = gold_answer(problem)
        letter = _chosen(gold, choices)
        if letter is None or (choices and letter not in choices):
            there = f"; the choices are {', '.join(choices)}" if choices else " and there are no reference['choices'] to find it in"
            raise GoldError(f"problem {problem.id!r}: reference 'answer' {gold[:80]!r} is no letter of a choice{there}")
        return [self._judge(letter, choices, response) for response in responses]

    def _judge(self, gold: str, choices: Mapping[str, str], response: Response) -> Verdict:
        answer = extract(response.text, self.extraction)
        if answer is None:
            return no_answer(response, self.extraction)
        letter = _chosen(answer, choices)
        if letter is None:
            return Verdict(0.0, "unparseable", extracted=answer, explanation=f"{answer[:80]!r} names no one choice")
        if letter == gold:
            return Verdict(1.0, "correct", extracted=answer)
        return Verdict(0.0, "incorrect", extracted=answer, explanation=f"chose {letter}, not {gold}")


def _choices(problem: Problem) -> dict[str, str]:
    given = problem.reference.get("choices") or {}
    if isinstance(given, Mapping):
        return {str(letter).strip().upper(): str(text) for letter, text in given.items()}
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) > len(LETTERS):
        raise GoldError(
            f"problem {problem.id!r}: reference 'choices' must be a list of at most 26 texts, or letters with texts, got {given!r}"
        )
    return dict(zip(LETTERS, map(str, given), strict=False))


def _chosen(answer: str, choices: Mapping[str, str]) -> str | None:
    """The one letter an answer stands for, None where it stands for none or several."""
    text = _bare(answer)
    by_text = [letter for letter, choice in choices.items() if _bare(choice).casefold() == text.casefold()]
    if len(by_text) == 1:
        return by_text[0]
    match = LETTER.match(text)
    if match is None or len(text) > 2000:
        return None
    letter, rest = match[1].upper(), (match[2] or match[3] or "").strip()
    bracketed = SET_APART.match(text, match.start(1)) is not None
    if SEVERAL.match(text) or (rest and not bracketed and match[3] is not None):
        # `A rest` begins a sentence; only `A) rest` names a choice.
        return letter if choices and _bare(rest).casefold() == _bare(choices.get(letter, "\0")).casefold() else None
    if rest and choices and letter in choices:
        others = [other for other, choice in choices.items() if other != letter and _bare(choice).casefold() == _bare(rest).casefold()]
        if others and _bare(choices[letter]).casefold() != _bare(rest).casefold():
            return None
    return letter


def _bare(text: str) -> str:
    for _ in range(3):
        text, count = WRAPPING.subn(r"\1", text)
        if not count:
            break
    return " ".join(text.replace("$", " ").replace("\\ ", " ").replace("*", " ").split()).strip(" .,;:\"'")
