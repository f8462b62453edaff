"""A place in a list of tokens, and what stands there."""

from __future__ import annotations

from verifiers.math.lexer import Token, Unreadable
from verifiers.math.nodes import Node
from verifiers.math.vocabulary import ALIASES, CLAUSES, FUNCTIONS, SEPARATORS


class Cursor:
    """The tokens and how far they are read; the grammar is in the classes below."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0  # absolute values that are open: a bar then closes
        self.conditions = 0  # set builders that are open: a bar there begins the condition

    def peek(self, ahead: int = 0) -> Token | None:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def next_is(self, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind in ("mark", "command") and token.text in texts

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise Unreadable("it breaks off")
        self.at += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.next_is(*texts):
            self.at += 1
            return True
        return False

    def require(self, *texts: str) -> None:
        if not self.accept(*texts):
            raise Unreadable(f"{texts[0]!r} is missing")

    def expect_end(self) -> None:
        if self.peek() is not None:
            raise Unreadable(f"{self.tokens[self.at].text[:20]!r} is out of place")

    def _clause_ahead(self) -> bool:
        """Words that only say for which variables an answer holds: `f(x) = 1 \\text{ for all } x`."""
        words = []
        for token in self.tokens[self.at : self.at + 3]:
            if token.kind not in ("text", "word"):
                break
            words.append(token.text.lower())
        return " ".join(words).startswith(CLAUSES)

    def _separator_ahead(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind in ("text", "word"):
            return token.text.lower().strip(" ,") in SEPARATORS
        return token.text in (",", ";", "land", "lor", "wedge", "vee")

    def _separator(self) -> bool:
        if self._separator_ahead():
            self.at += 1
            return True
        return False

    def _word_ahead(self, *words: str) -> bool:
        token = self.peek()
        return token is not None and token.kind in ("word", "text") and token.text in words

    def _function_ahead(self, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind in ("word", "command") and ALIASES.get(token.text, token.text) in FUNCTIONS

    # What the parts of the grammar ask of each other; `Parser` has it all.

    def items(self) -> Node:
        """A list without brackets, or its only item."""
        raise NotImplementedError

    def sum(self) -> Node:
        raise NotImplementedError

    def _term(self) -> Node:
        raise NotImplementedError

    def _power(self) -> Node:
        raise NotImplementedError

    def _exponent(self) -> Node:
        raise NotImplementedError

    def _postfix(self) -> Node:
        raise NotImplementedError

    def _tail(self, node: Node) -> Node:
        raise NotImplementedError

    def _factor_ahead(self) -> bool:
        raise NotImplementedError

    def _argument(self) -> Node:
        raise NotImplementedError

    def _atom(self) -> Node:
        raise NotImplementedError

    def _braces(self) -> Node:
        raise NotImplementedError

    def _builder(self, variable: Node) -> Node:
        raise NotImplementedError

    def _fraction_argument(self) -> Node:
        raise NotImplementedError

    def _bracketed(self, opening: str) -> Node:
        raise NotImplementedError
