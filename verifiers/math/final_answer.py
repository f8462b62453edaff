r"""Finds the final answer in a whole chain of thought, in an order of trust.

`strict` trusts only what was marked on purpose: the last `\boxed{…}` or `<answer>…</answer>`. `lenient`, the default, goes on to a sentence
that announces an answer, a `####` or `A:` line, the last formula, and the last number. What stands before a closing `</think>` is thought.

Several boxes side by side, `\boxed{5} or \boxed{6}`, are one answer with several values, right only where the gold answer has those values.
A box that later text replaces counts for nothing. All of it runs in time linear in the text.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from verifiers.extraction import NUMBER, Extraction, extract, without_thought

BOX_OR_BRACE = re.compile(
    r"\\(?:begin)?(?:boxed|fbox)\s{0,8}(?:(?P<box>\{)|(?P<token>[-+]?[0-9][0-9.,]{0,40}|[-+]?[A-Za-z](?![A-Za-z])))|\\[\\{}]|[{}]"
)
PHANTOM = re.compile(r"\s*\\h?v?phantom\s?\{[^{}]*\}\s*")
MAX_BOX = 20_000
"""Answers are short; a longer box is taken for one that was never closed."""
OPENING, CLOSING = "<answer>", "</answer>"
CONNECTION = re.compile(
    r"(?:[\s,;&$.:()\[\]]|\\[()\[\],;!\\ ]|\\q?quad|\\text\s{0,3}\{\s{0,3}(?:or|and),?\s{0,3}\}"
    r"|\b(?:or|and|either|else|maybe|perhaps|possibly|also|alternatively|respectively)\b)*",
    re.IGNORECASE,
)
ALTERNATIVE = re.compile(r"\b(?:or|and|else|maybe|perhaps|possibly|also|alternatively)\b", re.IGNORECASE)
MAX_CONNECTION = 80
MAX_JOINED = 16
"""Of a longer run of boxes only the last counts: somebody boxed every step."""
ANNOUNCEMENT = re.compile(
    r"(?:\bfinal\s{1,4}answer|\banswer|\bresult|\bsolution)\b\s{0,4}\**\s{0,4}"
    r"(?:(?:is|are|:|=|would be|must be)\s{0,4}:?\**|(?=\\\[|\\\(|\$))\s{0,8}",
    re.IGNORECASE,
)
LAST_WORD = re.compile(r"final answer(?: is)?:?\s", re.IGNORECASE)
LABEL = re.compile(r"^\s{0,4}A(?:nswer)?:\s{0,4}(\S.*)$", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[^\s.])[.!?](?=\s|\*|$)(?!\s{0,2}[0-9])|<\|")
FORMULA = re.compile(r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)|(?<!\\)\$((?:[^$\\]|\\.){1,2000}?)\$", re.DOTALL)
BECOMES = re.compile(r"(?:\bis\b|\bare\b|=|:|\bequals\b)\s{0,4}")
MAX_SHORT = 120
TAIL = 20_000
"""Of a longer text without marked answers only the end is searched."""


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The values offered as the final answer, one as a rule, and where they stood."""

    values: tuple[str, ...]
    place: str

    @property
    def text(self) -> str:
        return ", ".join(self.values)


def final_answer(text: str, extraction: Extraction) -> FinalAnswer | None:
    """Return the final answer of a response, None where there is none to be found."""
    if extraction not in ("strict", "lenient"):
        found = extract(text, extraction)
        return None if found is None else FinalAnswer((found.strip(),), extraction)
    text = without_thought(text)
    marked = _marked(text)
    if extraction == "strict":
        return marked
    if marked is not None:
        return _corrected(text, marked)
    return _announced(text) or _hash_or_label(text) or _unmarked(text)


# --- marked answers


def _marked(text: str) -> FinalAnswer | None:
    tags = _tags(text)
    boxes = _boxes(text) if "box" in text else []
    if tags and (not boxes or boxes[-1][0] < tags[-1][1]):
        values = [_opened(content) for content in _last_run(text, tags)]
        values = [value for value in values if value]
        return FinalAnswer(tuple(values), "tag") if values else None
    if boxes:
        return FinalAnswer(tuple(_last_run(text, boxes)), "boxed")
    return None


def _opened(content: str) -> str:
    """The box inside a tag, where there is one."""
    boxes = _boxes(content) if "box" in content else []
    return boxes[-1][2] if boxes else content.strip()


def _last_run(text: str, spans: list[tuple[int, int, str]]) -> list[str]:
    """The contents of the last span and of those directly before it, without repetitions."""
    run = [spans[-1][2].strip()]
    count = 1
    for before, after in zip(reversed(spans[:-1]), reversed(spans), strict=False):
        between = text[before[1] : after[0]]
        if len(between) > MAX_CONNECTION or not CONNECTION.fullmatch(between):
            break
        if "." in between and not ALTERNATIVE.search(between):
            break  # A new sentence takes back the one before.
        count += 1
        if count > MAX_JOINED:
            return [spans[-1][2].strip()]
        if before[2].strip() not in run:
            run.append(before[2].strip())
    return run[::-1]


def _tags(text: str) -> list[tuple[int, int, str]]:
    """Every `<answer>…</answer>` as (start, end, content)."""
    found = []
    position = text.find(OPENING)
    while position >= 0 and (close := text.find(CLOSING, position)) >= 0:
        start = text.rfind(OPENING, position, close)
        found.append((start, close + len(CLOSING), text[start + len(OPENING) : close]))
        position = text.find(OPENING, close)
    return found


@dataclass(slots=True)
class _Brace:
    """An open brace; of a box where `start` is set. `holds_box` once a box inside it was closed."""

    content: int
    start: int | None = None
    holds_box: bool = False


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Every closed box that is not empty, as (start, end, content); of nested ones the inner."""
    found: list[tuple[int, int, str]] = []
    open_braces: list[_Brace] = []
    for match in BOX_OR_BRACE.finditer(text):
        if match["token"] is not None:
            found.append((match.start(), match.end(), match["token"].rstrip(".,")))
        elif match["box"] is not None:
            open_braces.append(_Brace(match.end(), match.start()))
        elif match[0] == "{":
            open_braces.append(_Brace(match.end()))
        elif match[0] == "}" and open_braces:
            brace = open_braces.pop()
            content = text[brace.content : min(match.start(), brace.content + MAX_BOX)]
            is_answer = brace.start is not None and not brace.holds_box and match.start() - brace.content < MAX_BOX
            if is_answer and content.strip() and not PHANTOM.fullmatch(content):
                found.append((brace.start or 0, match.end(), content))
            if open_braces and (brace.holds_box or is_answer):
                open_braces[-1].holds_box = True
    return found


# --- answers in words


def _corrected(text: str, marked: FinalAnswer) -> FinalAnswer:
    """What a sentence behind the last box calls the *final* answer replaces the box."""
    after = max(text.rfind("boxed"), text.rfind("</answer>"))
    if LAST_WORD.search(text, after) is None:
        return marked
    announced = _announced(text[after:])
    return announced if announced is not None and "box" not in announced.text else marked


def _announced(text: str) -> FinalAnswer | None:
    found = deque(ANNOUNCEMENT.finditer(text[-TAIL:]), maxlen=1)
    if not found:
        return None
    rest = text[-TAIL:][found[0].end() :]
    sentence = _first_sentence(rest)
    return FinalAnswer((sentence,), "announced") if sentence else None


def _first_sentence(text: str) -> str:
    formula = FORMULA.match(text)
    if formula and ("\n" in formula[0] or formula[0].startswith(("\\[", "$$"))):
        return _inside(formula).strip()
    line = text.partition("\n\n")[0].strip().partition("\n")[0]
    return _bare(SENTENCE_END.split(line, maxsplit=1)[0])


def _bare(text: str) -> str:
    return text.strip().strip("*`").strip().removesuffix(".").strip()


def _hash_or_label(text: str) -> FinalAnswer | None:
    start = text.rfind("####")
    if start >= 0:
        line = text[start + 4 :].lstrip(" \t").partition("\n")[0].strip()
        if line:
            return FinalAnswer((_bare(line),), "hash")
    labels = deque(LABEL.finditer(text[-TAIL:]), maxlen=1)
    return FinalAnswer((_bare(labels[0][1]),), "label") if labels else None


def _unmarked(text: str) -> FinalAnswer | None:
    short = text.strip()
    if not short:
        return None
    formulas = deque(FORMULA.finditer(text[-TAIL:]), maxlen=1)
    if len(short) <= MAX_SHORT and "\n" not in short and (not formulas or formulas[0].start() < 8):
        return FinalAnswer((_bare(short),), "whole")
    if formulas:
        return FinalAnswer((_inside(formulas[0]).strip(),), "formula")
    numbers = deque(NUMBER.finditer(text[-TAIL:]), maxlen=1)
    return FinalAnswer((numbers[0][0],), "number") if numbers else None


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)


def narrower(answer: FinalAnswer) -> list[str]:
    """What else an announced sentence may hold that cannot be read as a whole: behind its last `is`, its only formula, its only number."""
    if answer.place not in ("announced", "whole", "label", "hash", "tag") or len(answer.values) > 1:
        return []
    (text,) = answer.values
    candidates = []
    behind = deque(BECOMES.finditer(text), maxlen=1)
    if behind and re.search(r"[0-9$\\]", text[behind[0].end() :]):
        candidates.append(text[behind[0].end() :])
    formulas = [_inside(match) for match in FORMULA.finditer(text)]
    if len(formulas) == 1:
        candidates.append(formulas[0])
    numbers = NUMBER.findall(text)
    if len(numbers) == 1:
        candidates.append(numbers[0])
    return [candidate.strip() for candidate in candidates if candidate.strip()]
