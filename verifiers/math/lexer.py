r"""Cuts a cleaned formula into tokens. Model output goes no further than this: it never reaches Python's own parser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from verifiers.math.units import is_unit

TokenKind = Literal["number", "word", "command", "text", "mark"]
MAX_TEXT = 400
MAX_TOKENS = 12_000

SCAN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<textual>\\(?:text|mbox|textbf|textit|textrm|textnormal|textsf|emph|mathrm|operatorname\*?|mathbf|mathit|mathsf|mathcal|mathbb|hbox|rm)"
    r"\s{0,8}\{)"
    r"|(?P<environment>\\(?:begin|end)\s{0,8}\{[A-Za-z*]{1,20}\})"
    r"|(?P<command>\\[A-Za-z]+|\\.)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<mark>\*\*|<=|>=|!=|==|<>|=<|=>|\.\.\.|[-+*/^_=<>(){}\[\]|,;:!%'&?.\"#@\u221a])"
    r"|(?P<other>.)",
    re.DOTALL,
)
EXPONENT = re.compile(r"[eE]([-+]?[0-9]{1,12})(?![0-9.^])")
MATRIX_COLUMNS = re.compile(r"\s{0,8}(?:\[[a-z]\]\s{0,8})?\{[^{}]{0,60}\}")


class Unreadable(ValueError):
    """The text is not a formula this parser knows."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a formula: `text` without braces or backslash; `spaced` where a blank stands before it."""

    kind: TokenKind
    text: str
    spaced: bool = False


def tokenize(text: str, *, thousands: bool = True) -> list[Token]:
    """Return the tokens; `thousands` reads `1,234` outside brackets as one number, else as two.

    Raises: Unreadable: a character or a construct that is in no formula, or too many tokens.
    """
    tokens: list[Token] = []
    position, depth, spaced = 0, 0, False
    while position < len(text):
        found = SCAN.match(text, position)
        assert found is not None
        kind, piece = found.lastgroup, found.group()
        position = found.end()
        if kind == "space":
            spaced = True
            continue
        if len(tokens) >= MAX_TOKENS:
            raise Unreadable(f"more than {MAX_TOKENS} symbols")
        if kind == "number":
            if "," in piece and (depth > 0 or not thousands):
                piece = piece.partition(",")[0]
                position = found.start() + len(piece)
            if piece.endswith(".") and len(piece) > 1:
                # `5.` ends a sentence, and `1...` begins an ellipsis.
                if text[position : position + 1] == ".":
                    position -= 1
                piece = piece.rstrip(".")
            exponent = EXPONENT.match(text, position)
            if exponent:
                piece, position = f"{piece}e{exponent[1]}", exponent.end()
            tokens.append(Token("number", piece.replace(",", ""), spaced))
        elif kind == "word":
            tokens.append(Token("word", piece, spaced))
        elif kind == "textual":
            content, position = _braced(text, position)
            tokens.extend(_textual(piece, content, spaced))
        elif kind == "environment":
            begins, name = piece.startswith("\\begin"), piece[piece.index("{") + 1 : -1].rstrip("*")
            if begins and name in ("array", "tabular"):
                columns = MATRIX_COLUMNS.match(text, position)
                position = columns.end() if columns else position
            tokens.append(Token("command", f"{'begin' if begins else 'end'} {name}", spaced))
        elif kind == "command":
            name = piece[1:]
            depth += (name == "{") - (name == "}")
            tokens.append(Token("command", name, spaced))
        elif kind == "mark":
            depth += (piece in "([") - (piece in ")]")
            tokens.append(Token("mark", piece, spaced))
        else:
            raise Unreadable(f"unknown character {piece!r}")
        spaced = False
    return tokens


def _braced(text: str, position: int) -> tuple[str, int]:
    """Return what stands up to the brace that closes the one before `position`, and where it ends."""
    depth = 1
    for at in range(position, len(text)):
        if text[at] in "{}" and text[at - 1] != "\\":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return text[position:at], at + 1
    raise Unreadable("a brace is not closed")


def _textual(command: str, content: str, spaced: bool) -> list[Token]:
    r"""What `\text{…}` and its kin hold: a formula in upright letters, or words."""
    name = command.strip("\\{ \t\n").rstrip("*")
    content = content.strip()
    if not content:
        return []
    if name in ("mathbb", "mathcal"):
        return [Token("command", f"mathbb {content}", spaced)]
    inner = content.strip("$ ").replace("\\ ", " ")
    # A letter, a number or a known function set upright is what it would be in italics.
    if name not in ("text", "mbox", "textnormal", "hbox") and re.fullmatch(r"[A-Za-z]|[A-Za-z]{1,6}", inner) and not is_unit(inner):
        return [Token("word", inner, spaced)] if len(inner) == 1 or inner in UPRIGHT else [Token("text", inner, spaced)]
    if len(inner) > MAX_TEXT:
        return [Token("text", inner, spaced)]
    if re.fullmatch(r"[-+0-9.,\s$\\/%^{}()=]+|\(?[A-Z]\)?|[xyzabeinkijpqt]", inner) or "\\frac" in inner or "\\sqrt" in inner:
        return [Token(token.kind, token.text, spaced or token.spaced) for token in tokenize(inner)]
    joint = JOINT.fullmatch(inner)
    if joint:
        before, word, after = joint.groups()
        return [Token("text", piece.strip(" ,"), True) for piece in (before, word, after) if piece.strip(" ,")]
    return [Token("text", inner, spaced)]


JOINT = re.compile(r"(|.{0,80}[ ,])(and|or)(|[ ,].{0,80})", re.DOTALL)
UPRIGHT = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp gcd lcm max min mod det arcsec arccsc arccot cis sgn".split()
)
