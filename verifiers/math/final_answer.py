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

BOX = re.compile(r"\\(?:begin)?(?:boxed|fbox)\s{0,8}(?:\{|(?=[0-9A-Za-z+-]))")
BRACE = re.compile(r"\\[\\{}]|[{}]")
CONNECTION = re.compile(
    r"(?:[\s,;&$.:()\[\]]|\\[()\[\],;!\\ ]|\\q?quad|\\text\s{0,3}\{\s{0,3}(?:or|and),?\s{0,3}\}"
    r"|\b(?:or|and|either|else|maybe|perhaps|possibly|also|alternatively|respectively)\b)*"
)
MAX_CONNECTION = 80
MAX_JOINED = 16
"""Of a longer run of boxes only the last counts: somebody boxed every step."""
TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ANNOUNCEMENT = re.compile(
    r"(?:\bfinal\s{1,4}answer|\banswer|\bresult|\bsolution)\b\s{0,4}\**\s{0,4}"
    r"(?:(?:is|are|:|=|would be|must be)\s{0,4}:?\**|(?=\\\[|\\\(|\$))\s{0,8}",
    re.IGNORECASE,
)
LAST_WORD = re.compile(r"final answer(?: is)?:?\s", re.IGNORECASE)
LABEL = re.compile(r"^\s{0,4}A(?:nswer)?:\s{0,4}(\S.*)$", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[^\s.])[.!?](?=\s|\*|$)(?!\s{0,2}[0-9])|<\|")
FORMULA = re.compile(r"\$\$(.{1,4000}?)\$\$|\\\[(.{1,4000}?)\\\]|\\\((.{1,4000}?)\\\)|(?<!\\)\$((?:[^$\\]|\\.){1,2000}?)\$", re.DOTALL)
BECOMES = re.compile(r"(?:\bis\b|\bare\b|=|:|\bequals\b)\s{0,4}")
MAX_SHORT = 120
TAIL = 40_000
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
        return None if found is None else FinalAnswer((found,), extraction)
    text = without_thought(text)
    marked = _marked(text)
    if extraction == "strict":
        return marked
    if marked is not None:
        return _corrected(text, marked)
    return _announced(text) or _hash_or_label(text) or _unmarked(text)


# --- marked answers


def _marked(text: str) -> FinalAnswer | None:
    tags = [(match.start(), match.end(), match[1]) for match in TAG.finditer(text)] if "<answer>" in text else []
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
        count += 1
        if count > MAX_JOINED:
            return [spans[-1][2].strip()]
        if before[2].strip() not in run:
            run.append(before[2].strip())
    return run[::-1]


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Every closed box that is not empty, as (start, end, content); of nested ones the inner."""
    found: list[tuple[int, int, str]] = []
    position = 0
    while (match := BOX.search(text, position)) is not None:
        if not match.group().endswith("{"):
            token = re.compile(r"[-+]?[0-9][0-9.,]{0,40}|[-+]?[A-Za-z]").match(text, match.end())
            position = token.end() if token else match.end()
            if token:
                found.append((match.start(), position, token[0].rstrip(".,")))
            continue
        end = _closing(text, match.end())
        if end is None:
            position = match.end()
            continue
        content = text[match.end() : end]
        if BOX.search(content):
            position = match.end()  # The inner one is the answer.
            continue
        if content.strip() and not re.fullmatch(r"\s*\\h?v?phantom\s?\{[^{}]*\}\s*", content):
            found.append((match.start(), end + 1, content))
        position = end + 1
    return found


def _closing(text: str, start: int) -> int | None:
    """Where the brace opened before `start` is closed; answers are short, so a box that runs on is taken for unclosed."""
    depth = 1
    for match in BRACE.finditer(text, start, start + 20_000):
        if len(match[0]) == 1:
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return match.start()
    return None


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
        return _inside(formula)
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
    if answer.place not in ("announced", "whole", "label", "hash"):
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
