"""The verifier `instruction`: constraints on a response's form that a program can check, in the manner of IFEval (arXiv:2311.07911)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from verifiers.errors import GoldError, VerifierError
from verifiers.registry import near
from verifiers.types import Problem, Response, Verdict

Score = Literal["all", "share"]
Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]
MAX_CHARACTERS = 200_000

WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')\]]|$)")
BULLET = re.compile(r"^[ \t]*(?:\*(?!\*)|-)[ \t]*\S", re.MULTILINE)
HIGHLIGHT = re.compile(r"\*\*([^*\n]+)\*\*|\*([^*\n]+)\*")
PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
TITLE = re.compile(r"<<[^<>\n]+>>")
FENCE = re.compile(r"^```(?:json)?\s*|\s*```$", re.IGNORECASE)
CONSTRAINED = ("my answer is yes.", "my answer is no.", "my answer is maybe.")


@dataclass(frozen=True, slots=True)
class Instruction:
    """Checks the constraints of `reference["constraints"]`, each a mapping of `id` and its arguments; docs/instruction.md lists them.

    IFEval's own columns, `instruction_id_list` and `kwargs`, are read too. score: `all` pays 1 where every constraint holds, `share` the
    share that hold. loose: a constraint also holds where it holds without the first line, the last line, or the asterisks of Markdown, as
    in the paper's loose accuracy. `Verdict.parts` has each constraint's 1 or 0.
    """

    score: Score = "all"
    loose: bool = False

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise ValueError(f"score={self.score!r} is neither 'all' nor 'share'")

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        constraints = _constraints(problem)
        return [self._judge(problem, constraints, response) for response in responses]

    def _judge(self, problem: Problem, constraints: Sequence[tuple[str, Arguments]], response: Response) -> Verdict:
        text = response.text[:MAX_CHARACTERS]
        parts: dict[str, float] = {}
        for name, arguments in constraints:
            key = name if name not in parts else f"{name} {len(parts)}"
            parts[key] = float(self._holds(problem, name, arguments, text))
        share = sum(parts.values()) / len(parts)
        broken = ", ".join(name for name, held in parts.items() if not held)
        outcome: Literal["correct", "incorrect", "partial"] = "correct" if share == 1 else "incorrect" if share == 0 else "partial"
        if response.finish_reason == "length":
            return Verdict(0.0, "truncated", parts=parts, explanation="cut off before it ended")
        score = share if self.score == "share" else float(share == 1)
        return Verdict(score, outcome, parts=parts, explanation=f"broken: {broken}" if broken else "")

    def _holds(self, problem: Problem, name: str, arguments: Arguments, text: str) -> bool:
        if not text.strip():
            return False
        try:
            return any(CHECKS[name](version, arguments) for version in (_loosened(text) if self.loose else (text,)) if version.strip())
        except (KeyError, TypeError, ValueError) as error:
            raise GoldError(
                f"problem {problem.id!r}: constraint {name!r} with {dict(arguments)!r}: {type(error).__name__}: {error}"
            ) from error


def _constraints(problem: Problem) -> list[tuple[str, Arguments]]:
    reference = problem.reference
    given = reference.get("constraints")
    if given is None and "instruction_id_list" in reference:
        names, arguments = reference["instruction_id_list"], reference.get("kwargs") or [{}] * len(reference["instruction_id_list"])
        given = [{"id": name, **{k: v for k, v in (a or {}).items() if v is not None}} for name, a in zip(names, arguments, strict=False)]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise GoldError(
            f"problem {problem.id!r}: the reference needs 'constraints', a list such as [{{'id': 'punctuation:no_comma'}}], got {given!r}"
        )
    constraints = []
    for constraint in given:
        if not isinstance(constraint, Mapping) or constraint.get("id") not in CHECKS:
            name = constraint.get("id") if isinstance(constraint, Mapping) else constraint
            raise GoldError(f"problem {problem.id!r}: no constraint {name!r}{near(str(name), CHECKS)}; docs/instruction.md lists them")
        constraints.append((constraint["id"], {key: value for key, value in constraint.items() if key != "id"}))
    return constraints


def _loosened(text: str) -> list[str]:
    lines = text.split("\n")
    cuts = [text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return cuts + [cut.replace("*", "") for cut in cuts]


# --- constraints


def _compared(count: int, relation: str, bound: int) -> bool:
    if relation not in ("less than", "at least"):
        raise ValueError(f"relation {relation!r} is neither 'less than' nor 'at least'")
    return count < int(bound) if relation == "less than" else count >= int(bound)


def _occurrences(text: str, phrase: str) -> int:
    """How often a phrase stands in a text as whole words, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE))


def _letter_frequency(text: str, arguments: Arguments) -> bool:
    return _compared(text.lower().count(arguments["letter"].lower()), arguments["let_relation"], arguments["let_frequency"])


def _language(text: str, arguments: Arguments) -> bool:
    try:
        import langdetect
    except ImportError as error:
        raise VerifierError("the constraint language:response_language needs langdetect: pip install 'rlvr[instruction]'") from error
    langdetect.DetectorFactory.seed = 0
    try:
        return bool(langdetect.detect(text) == arguments["language"])
    except langdetect.LangDetectException:
        return False


def _sentences(text: str) -> int:
    pieces = [piece for piece in SENTENCE_END.split(text) if WORD.search(piece)]
    return len(pieces)


def _paragraphs(text: str, arguments: Arguments) -> bool:
    """Paragraphs are separated by a line of three asterisks."""
    pieces = re.split(r"\s?\*\*\*\s?", text)
    return len([piece for piece in pieces if piece.strip()]) == int(arguments["num_paragraphs"]) and not any(
        not piece.strip() for piece in pieces[1:-1]
    )


def _first_word(text: str, arguments: Arguments) -> bool:
    paragraphs = [piece for piece in text.split("\n\n") if piece.strip()]
    nth = int(arguments["nth_paragraph"])
    if len(paragraphs) != int(arguments["num_paragraphs"]) or not 1 <= nth <= len(paragraphs):
        return False
    word = WORD.search(paragraphs[nth - 1])
    return word is not None and word[0].casefold() == arguments["first_word"].casefold()


def _postscript(text: str, arguments: Arguments) -> bool:
    marker = arguments["postscript_marker"]
    spaced = r"\s*".join(re.escape(character) for character in marker.replace(" ", ""))
    return re.search(rf"^\s*{spaced}", text, re.IGNORECASE | re.MULTILINE) is not None


def _sections(text: str, arguments: Arguments) -> bool:
    splitter = arguments.get("section_spliter") or arguments["section_splitter"]
    return len(re.findall(rf"^\W*{re.escape(splitter)}\s*\d+", text, re.IGNORECASE | re.MULTILINE)) >= int(arguments["num_sections"])


def _json(text: str) -> bool:
    try:
        json.loads(FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str) -> bool:
    """Two different answers with six asterisks between them."""
    pieces = [piece.strip() for piece in text.split("******")]
    return len(pieces) == 2 and all(pieces) and pieces[0] != pieces[1]


def _capital_words(text: str, arguments: Arguments) -> bool:
    count = sum(word.isupper() for word in WORD.findall(text))
    return _compared(count, arguments["capital_relation"], arguments["capital_frequency"])


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, a: all(_occurrences(text, word) > 0 for word in a["keywords"]),
    "keywords:frequency": lambda text, a: _compared(_occurrences(text, a["keyword"]), a["relation"], a["frequency"]),
    "keywords:forbidden_words": lambda text, a: not any(_occurrences(text, word) for word in a["forbidden_words"]),
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda text, a: _compared(_sentences(text), a["relation"], a["num_sentences"]),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, a: _compared(len(WORD.findall(text)), a["relation"], a["num_words"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, a: len(PLACEHOLDER.findall(text)) >= int(a["num_placeholders"]),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, a: len(BULLET.findall(text)) == int(a["num_bullets"]),
    "detectable_format:constrained_response": lambda text, a: any(phrase in text.lower() for phrase in CONSTRAINED),
    "detectable_format:number_highlighted_sections": lambda text, a: len(HIGHLIGHT.findall(text)) >= int(a["num_highlights"]),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda text, a: _json(text),
    "detectable_format:title": lambda text, a: TITLE.search(text) is not None,
    "combination:two_responses": lambda text, a: _two_responses(text),
    "combination:repeat_prompt": lambda text, a: text.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda text, a: text.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    "startend:quotation": lambda text, a: _quoted(text),
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, a: text.isupper(),
    "change_case:english_lowercase": lambda text, a: text.islower(),
    "punctuation:no_comma": lambda text, a: "," not in text,
}
