"""Operands: numbers, letters, words, and everything in brackets."""

from __future__ import annotations

from verifiers.math.commands import Commands
from verifiers.math.lexer import Token, Unreadable
from verifiers.math.literals import number_node
from verifiers.math.nodes import Node
from verifiers.math.vocabulary import ALIASES, CLOSERS, FUNCTIONS, GREEK, LEADING_WORDS, UNKNOWN_FUNCTIONS


class Operands(Commands):
    """The part of the grammar that begins an operand."""

    def _argument(self) -> Node:
        r"""What a LaTeX command or a subscript applies to: `{…}`, or the next symbol; `\frac12` is one over two."""
        if self.next_is("{"):
            return self._braces()
        token = self.peek()
        if token is not None and token.kind == "word" and len(token.text) > 1 and token.text not in FUNCTIONS:
            self.tokens[self.at : self.at + 1] = [Token("word", letter) for letter in token.text]
        if self.next_is("-"):
            self.at += 1
            return Node("negate", (self._atom(),))
        return self._atom()

    def _fraction_argument(self) -> Node:
        token = self.peek()
        if token is not None and token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at : self.at + 1] = [Token("number", token.text[0]), Token("number", token.text[1:])]
        return self._argument()

    def _braces(self) -> Node:
        self.require("{")
        if self.accept("}"):
            raise Unreadable("empty braces")
        bars, self.bars, conditions = self.bars, 0, self.conditions
        token = self.peek()
        # `{x | x > 0}`, a set whose braces lost their backslashes
        self.conditions = int(token is not None and token.kind == "word" and len(token.text) == 1 and self.next_is("|", "mid", ahead=1))
        node = self.items()
        if self.accept("over"):
            node = Node("divide", (node, self.items()))
        elif self.accept("choose"):
            node = Node("function", (node, self.items()), "binomial")
        if self.next_is("|", "mid") or self.next_is(":"):
            node = self._builder(node)
        self.require("}")
        self.bars, self.conditions = bars, conditions
        return Node("group", node.args, "{}") if node.kind == "list" else node

    def _builder(self, variable: Node) -> Node:
        self.take()
        return Node("builder", (variable, self.items()))

    def _atom(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return number_node(token.text)
        if token.kind == "word":
            return self._word(token)
        if token.kind == "text":
            return self._words(token)
        if token.kind == "command":
            return self._command(token)
        if token.text in ("(", "["):
            return self._bracketed(token.text)
        if token.text == "{":
            self.at -= 1
            return self._braces()
        if token.text == "|":
            self.bars += 1
            node = self.items()
            self.require("|")
            self.bars -= 1
            return Node("function", (node,), "abs")
        if token.text == "+":
            return self._atom()
        raise Unreadable(f"{token.text!r} is out of place")

    def _words(self, token: Token) -> Node:
        words = token.text.strip()
        following = self.peek()
        if following is not None and words.lower().rstrip(" :") in LEADING_WORDS:
            return self._power()
        return Node("text", (), words.lower())

    def _bracketed(self, opening: str) -> Node:
        if self.next_is(*CLOSERS[opening]):
            raise Unreadable("empty brackets")
        bars, self.bars, conditions, self.conditions = self.bars, 0, self.conditions, 0
        node = self.items()
        closing = self.peek()
        self.require(*CLOSERS[opening])
        assert closing is not None
        self.bars, self.conditions = bars, conditions
        brackets = opening + closing.text
        if node.kind == "list":
            return Node("group", node.args, brackets)
        if brackets not in ("()", "[]"):
            raise Unreadable(f"{opening} closed by {closing.text}")
        return node

    def _word(self, token: Token) -> Node:
        word = token.text
        lower = ALIASES.get(word.lower(), word.lower())
        if lower in FUNCTIONS and len(word) > 1:
            return self._function(lower)
        if lower in ("infinity", "inf", "oo"):
            return Node("constant", (), "infinity")
        if word in ("pi", "Pi"):
            return Node("constant", (), "pi")
        if word in ("i", "e"):
            return Node("constant", (), word)
        if word == "R" and self.peek() is None and self.at == 1:
            return Node("symbol", (), "R")
        if len(word) == 1:
            return self._letter(word)
        if word in GREEK:
            return Node("symbol", (), word)
        if lower in ("nan", "none", "undefined", "null"):
            return Node("text", (), lower)
        if len(word) > 3 or (len(self.tokens) == 1 and not word.isupper() and len(word) > 2):
            raise Unreadable(f"the word {word[:20]!r}")
        # Letters side by side: a product. The first stays an operand, so that `ab^2` raises b alone.
        self.at -= 1
        self.tokens[self.at : self.at + 1] = [Token("word", letter) for letter in word]
        return self._atom()

    def _letter(self, letter: str) -> Node:
        if letter in UNKNOWN_FUNCTIONS and self.next_is("("):
            return self._applied(letter)
        following = self.peek(1)
        if self.next_is("(") and following is not None and self._tuple_ahead():
            return self._applied(letter)
        return Node("symbol", (), letter)

    def _tuple_ahead(self) -> bool:
        depth = 0
        for token in self.tokens[self.at : self.at + 40]:
            if token.text in ("(", "[", "{"):
                depth += 1
            elif token.text in (")", "]", "}"):
                depth -= 1
                if depth == 0:
                    return False
            elif token.text == "," and depth == 1:
                return True
        return False

    def _applied(self, name: str) -> Node:
        self.require("(")
        inner = self.items()
        self.require(")")
        return Node("apply", inner.args if inner.kind == "list" else (inner,), name)
