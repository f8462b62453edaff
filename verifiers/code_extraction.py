"""Finds the program in a response: the last fenced block that can be one, or the response itself where nothing is fenced."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from verifiers.extraction import without_thought

FENCE = re.compile(r"^[ \t]{0,12}(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)
PYTHON = frozenset({"python", "py", "python3", "py3", "python2", "ipython", "pycon"})
TRIPLE_QUOTE = re.compile(r'"""|' + "'''")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `language` is the first word behind its fence, in lower case."""

    language: str
    code: str
    closed: bool


def extract_code(text: str, names: Collection[str] = ()) -> str | None:
    """Return the program a response proposes, or None where it proposes none.

    Of several fenced blocks marked as Python, or not marked, the last that defines one of `names` counts; where none does, the last marked
    one, then the last one. A block that is never closed counts only where no other does. Without a fence the whole response is the program.
    """
    text = without_thought(text, "\n")
    blocks = [block for block in fenced_blocks(text) if block.language in PYTHON or not block.language]
    if not blocks:
        return text if text.strip() and not FENCE.search(text) else _unfenced(text)
    for eligible in ([block for block in blocks if block.closed], blocks):
        if not eligible:
            continue
        defining = [block for block in eligible if any(defines(block.code, name) for name in names)]
        marked = [block for block in eligible if block.language]
        return ((defining or marked or eligible)[-1].code) or None
    return None


def defines(code: str, name: str) -> bool:
    """Whether code defines a function, class or variable of that name, at any depth of a class."""
    first = re.escape(name.split(".")[-1].replace("()", ""))
    return re.search(rf"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+{first}\b|^{first}[ \t]*(?::[^=\n]+)?=", code, re.MULTILINE) is not None


def continues(code: str) -> bool:
    """Whether code is the rest of a function whose head stands in the prompt: its first line, comments aside, is indented."""
    first = next((line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    return first[:1] in (" ", "\t")


def fenced_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of Markdown, in order; the indentation of a fence is taken off its lines."""
    blocks: list[Block] = []
    position = 0
    while (opening := FENCE.search(text, position)) is not None:
        if _inside_string(text[: opening.start()]) and not blocks:
            return []  # Backticks in a docstring of a program that is not fenced itself.
        mark = opening[1]
        closing_fence = re.compile(rf"^[ \t]{{0,12}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$", re.MULTILINE)
        closing = closing_fence.search(text, opening.end())
        body = text[opening.end() + 1 : closing.start() if closing else len(text)]
        indent = len(opening[0]) - len(opening[0].lstrip())
        if indent:
            body = re.sub(rf"^[ \t]{{1,{indent}}}", "", body, flags=re.MULTILINE)
        words = opening[2].split()
        blocks.append(Block(words[0].lower().strip("{}.") if words else "", body, closing is not None))
        if closing is None:
            break
        position = closing.end()
    return blocks


def _inside_string(before: str) -> bool:
    return len(TRIPLE_QUOTE.findall(before)) % 2 == 1


def _unfenced(text: str) -> str | None:
    """A program with fences inside its strings only; a response whose fences are all of other languages has none."""
    return text if text.strip() and not fenced_blocks(text) else None
