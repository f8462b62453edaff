r"""Finds the final answer in a written-out line of thought.

Every form takes the *last* answer of its kind and runs in time linear in the text. What stands before a closing `</think>` is thought, not
an answer; an unclosed `<think>` hides nothing, since the response may have been cut off. Judging the answer is not done here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Literal, get_args

Extraction = Literal["strict", "lenient", "tag", "boxed", "hash", "whole"]
r"""Where the final answer is looked for.

strict: the last of `<answer>…</answer>` and `\boxed{…}`; a box inside the tag is opened. What training recipes use: nothing to guess at.
lenient: strict, else a last line `#### …`, else the last "the answer is …", else the last number. For models not trained to a format.
tag, boxed, hash: that one form alone. whole: the text itself.
"""

THINK_TAG = re.compile(r"</?think>")
OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
BOX = re.compile(r"\\boxed\s{0,8}\{")
BOX_OR_BRACE = re.compile(r"(\\boxed\s{0,8}\{)|\\[\\{}]|([{}])")
PHRASE = re.compile(r"\banswer(?:\s{1,8}is|\s{0,8}:)\s{0,8}:?\s{0,8}", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!](?=\s|$)")
# A sign counts unless it stands behind an operand; commas only where they separate thousands.
NUMBER = re.compile(
    r"(?:(?<![\w)}])[-+\u2212])?\$?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:/[0-9]+)?(?:\\?%)?"
)


def check_extraction(extraction: str) -> None:
    """Raise ValueError, naming the forms there are, unless `extraction` is one of them."""
    if extraction not in get_args(Extraction):
        raise ValueError(f"extraction={extraction!r} is none of {', '.join(get_args(Extraction))}")


def extract(text: str, extraction: Extraction = "strict") -> str | None:
    r"""Return the final answer, stripped and never empty, or None.

    Example: `<think>\boxed{1}?</think> So \boxed{\frac{1}{2}}.` gives `\frac{1}{2}`.
    """
    found = _FORMS[extraction](without_thought(text))
    return (found.strip() or None) if found else None


def without_thought(text: str, joint: str = " ") -> str:
    """Drop every closed `<think>` block; a closing tag without an opening one ends thought that the prompt began.

    `joint` stands where thought was. For programs it is a line break: a blank would indent what follows.
    """
    kept: list[str] = []
    start, opened = 0, None  # `start`: where undecided text begins. `opened`: where the first unclosed block since then begins.
    for tag in THINK_TAG.finditer(text):
        if tag.group() == "<think>":
            opened = tag.start() if opened is None else opened
            continue
        if opened is not None:
            kept.append(text[start:opened])
        start, opened = tag.end(), None
    kept.append(text[start:])
    return joint.join(kept) if len(kept) > 1 else kept[0]


def last_number(text: str) -> str | None:
    """Return the last number, with its sign, thousands separators, fraction bar or percent sign."""
    matches = deque(NUMBER.finditer(text), maxlen=1)
    return matches[0].group() if matches else None


def _tagged(text: str) -> str | None:
    span = _tag_span(text)
    return None if span is None else text[span[0] : span[1]]


def _boxed(text: str) -> str | None:
    span = _box_span(text)
    return None if span is None else text[span[0] : span[1]]


def _hash(text: str) -> str | None:
    start = text.rfind("####")
    return text[start + 4 :].lstrip(" \t").partition("\n")[0] if start >= 0 else None


def _strict(text: str) -> str | None:
    tag, box = _tag_span(text), _box_span(text)
    if tag is None:
        return _boxed(text)
    # The answer written last counts; a box inside the tag is the tag's answer.
    if box is not None and box[1] > tag[0]:
        return text[box[0] : box[1]]
    return text[tag[0] : tag[1]]


def _lenient(text: str) -> str | None:
    found = _strict(text)
    if found and found.strip():
        return found
    last_line = text.rstrip()[text.rstrip().rfind("\n") + 1 :]
    # Elsewhere `####` is more often a heading than an answer.
    if last_line.startswith("####"):
        return last_line[4:]
    phrases = deque(PHRASE.finditer(text), maxlen=1)
    if phrases:
        line = text[phrases[0].end() :].partition("\n")[0]
        answer = SENTENCE_END.split(line, maxsplit=1)[0].strip().strip("*$").strip()
        if answer:
            return answer
    return last_number(text)


_FORMS: dict[str, Callable[[str], str | None]] = {
    "strict": _strict,
    "lenient": _lenient,
    "tag": _tagged,
    "boxed": _boxed,
    "hash": _hash,
    "whole": lambda text: text,
}


def _tag_span(text: str) -> tuple[int, int] | None:
    last_close = text.rfind(CLOSE_TAG)
    start = text.rfind(OPEN_TAG, 0, last_close) if last_close >= 0 else -1
    if start < 0:
        return None
    start += len(OPEN_TAG)
    return start, text.find(CLOSE_TAG, start)


def _box_span(text: str) -> tuple[int, int] | None:
    r"""Where the content of the last complete `\boxed{…}` lies; of nested ones, the innermost last."""
    last = text.rfind(r"\boxed")
    if last < 0:
        return None
    # Nearly always the last box is whole; only where it is not are the braces of the entire text matched, once.
    return _scan_boxes(text, last) or _scan_boxes(text, text.find(r"\boxed"))


def _scan_boxes(text: str, start: int) -> tuple[int, int] | None:
    opened: list[int | None] = []  # for each open brace: where the box's content begins, None for a plain brace
    best: tuple[int, int] | None = None
    for match in BOX_OR_BRACE.finditer(text, start):
        if match.group(1):
            opened.append(match.end())
        elif match.group(2) == "{":
            opened.append(None)
        elif match.group(2) == "}" and opened:
            content = opened.pop()
            if content is not None and (best is None or content > best[0]):
                best = content, match.start()
    return best
