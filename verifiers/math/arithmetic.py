"""Sums, products, powers, units and what may follow an operand."""

from __future__ import annotations

from verifiers.math.lexer import Unreadable
from verifiers.math.literals import base_of, choice_of, in_base, name_of, number_node, primed
from verifiers.math.nodes import Node
from verifiers.math.operands import Operands
from verifiers.math.units import TABLE, is_unit
from verifiers.math.vocabulary import ALIASES, CONSTANT_WORDS, FUNCTIONS, GREEK, ORDINALS, RELATIONS, SEPARATORS

MAX_DEPTH = 240
MAX_LABEL_WORDS = 12


class Arithmetic(Operands):
    """The part of the grammar between operands."""

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH}")
        terms = [self._signed_term()]
        while True:
            if self.accept("+"):
                terms.append(self._signed_term())
            elif self.accept("-"):
                term = self._signed_term()
                if term.kind == "group" and (len(term.args) != 1 or term.value == "{}") and terms[-1].kind in ("group", "builder", "reals"):
                    terms[-1] = Node("difference", (terms[-1], term))
                else:
                    terms.append(Node("negate", (term,)))
            elif self.next_is("pm", "mp"):
                sign = "+" if self.take().text == "pm" else "-"
                terms.append(Node("plus_minus", (self._signed_term(),), sign))
            else:
                break
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _signed_term(self) -> Node:
        negative, sign = False, ""
        while self.next_is("-", "+", "pm", "mp"):
            text = self.take().text
            if text == "-":
                negative = not negative
            elif text != "+":
                sign = "+" if text == "pm" else "-"
        term = self._term()
        if negative:
            term = Node("negate", (term,))
        return Node("plus_minus", (term,), sign) if sign else term

    def _term(self) -> Node:
        node = self._power()
        while True:
            if self.accept("*", "cdot", "times", "ast", "bullet"):
                node = Node("multiply", (node, self._signed_factor()))
            elif self.accept("/", "div"):
                node = Node("divide", (node, self._signed_factor()))
            elif self._mixed_ahead(node):
                node = self._tail(Node("add", (node, self._fraction_of_mixed())))
            elif self._unit_ahead(node):
                node = self._unit(node)
            elif self._factor_ahead():
                # `1/2 x` reads as (1/2) x, and so does `1/2x`.
                factor = self._power()
                # `k\\pi (k \\in \\mathbb{Z})`: what is in brackets only qualifies.
                qualifies = factor.kind == "relation" and factor.value == ("in",)
                node = node if qualifies else Node("multiply", (node, factor))
            elif self.accept("pmod", "bmod") or self._word_ahead("mod"):
                if self._word_ahead("mod"):
                    self.at += 1
                node = Node("apply", (node, self._power()), "mod")
            else:
                return node

    def _signed_factor(self) -> Node:
        negative = False
        while self.next_is("-", "+"):
            negative ^= self.take().text == "-"
        node = self._power()
        return Node("negate", (node,)) if negative else node

    def _mixed_ahead(self, node: Node) -> bool:
        """A whole number directly before a fraction of numbers: `1\\frac{1}{2}`, `1 1/2`."""
        if node.kind != "number" or node.value.denominator != 1 or self.at < 1 or self.tokens[self.at - 1].kind != "number":  # type: ignore[union-attr]
            return False
        token = self.peek()
        if token is None:
            return False
        if token.kind == "command" and token.text == "frac":
            saved = self.at
            try:
                fraction = self._atom()
            except Unreadable:
                return False
            finally:
                self.at = saved
            over, under = fraction.args
            return over.kind == under.kind == "number" and under.value > over.value > 0  # type: ignore[operator]
        after, last = self.peek(1), self.peek(2)
        return (
            token.kind == "number"
            and token.spaced
            and after is not None
            and after.text == "/"
            and last is not None
            and last.kind == "number"
            and token.text.isdigit()
            and last.text.isdigit()
        )

    def _fraction_of_mixed(self) -> Node:
        if self.next_is("frac"):
            return self._atom()
        over = self._atom()
        self.take()
        return Node("divide", (over, self._atom()))

    def _unit_ahead(self, node: Node) -> bool:
        token = self.peek()
        if token is None or node.kind == "text":
            return False
        if token.kind == "text":
            return token.text.lower().strip(" ,") not in SEPARATORS and not self._clause_ahead()
        if token.kind == "word":
            return is_unit(token.text) or (token.spaced and len(token.text) > 2 and self._only_words_ahead() and not node.has_symbols())
        return self._unit_fraction_ahead()

    def _only_words_ahead(self) -> bool:
        """Whether a plain word begins a run of words up to the next separator or the end: `12 apples`."""
        for token in self.tokens[self.at : self.at + MAX_LABEL_WORDS]:
            if token.kind not in ("word", "text"):
                return token.text in (",", ";", ")", "]", "}")
            word = ALIASES.get(token.text.lower(), token.text.lower())
            if word in FUNCTIONS or word in GREEK or word in CONSTANT_WORDS or word in SEPARATORS or word in ("mod", "choose"):
                return False
        return True

    def _unit_fraction_ahead(self) -> bool:
        r"""`\\frac{\\text{km}}{\\text{h}}`: a quotient of two words."""
        pieces = self.tokens[self.at : self.at + 7]
        marks = [token.text for token in pieces[:2] + pieces[3:5] + pieces[6:]]
        return len(pieces) == 7 and marks == ["frac", "{", "}", "{", "}"] and pieces[2].kind == "text" and pieces[5].kind == "text"

    def _unit(self, node: Node) -> Node:
        """Units and other words behind a quantity, with their powers, products and quotients."""
        parts: list[str] = []
        if self._unit_fraction_ahead():
            parts += [self.tokens[self.at + 2].text, "/", self.tokens[self.at + 5].text]
            self.at += 7
        words = self._only_words_ahead()
        while (token := self.peek()) is not None:
            if token.kind == "text" and token.text.lower().strip(" ,") not in SEPARATORS and not self._clause_ahead():
                parts.append(self.take().text.strip())
            elif token.kind == "word" and (token.text.lower() in TABLE or words) and token.text not in SEPARATORS:
                parts.append(self.take().text)
            elif parts and token.text in ("^", "**") and (power := self.peek(1)) is not None:
                self.at += 1
                if power.text == "{":
                    self.at += 1
                    inner = self.take().text
                    if inner == "-":
                        inner += self.take().text
                    self.require("}")
                else:
                    inner = self.take().text
                parts[-1] += f"^{inner}"
            elif (
                parts
                and token.text in ("/", "cdot", "*")
                and (after := self.peek(1)) is not None
                and (after.kind == "text" or (after.kind == "word" and after.text.lower() in TABLE))
            ):
                self.at += 1
                parts.append("/" if token.text == "/" else "*")
            else:
                break
        if not parts:
            raise Unreadable("words in the middle of a formula")
        return Node("unit", (node,), " ".join(parts))

    def _factor_ahead(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind == "number":
            # Two numbers side by side are no product; but `\sqrt{2} 3` is.
            return self.at > 0 and self.tokens[self.at - 1].kind != "number"
        if token.kind == "word":
            return token.text not in SEPARATORS and token.text not in ("mod", "U")
        if token.kind == "text":
            return False
        if token.kind == "command":
            return not (
                token.text in RELATIONS
                or token.text.startswith("end ")
                or token.text
                in ("}", "\\", "pm", "mp", "cdot", "times", "div", "cup", "cap", "setminus", "backslash", "land", "lor", "wedge", "vee")
                or token.text in ("ast", "bullet", "%", "rfloor", "rceil", "rvert", "rangle", "choose", "over", "pmod", "bmod", "cupdot")
                or token.text in ("bigcup", "bigcap", "sqcup")
            )
        if token.text == "|":
            return self.bars == 0 and self.conditions == 0 and self.at + 1 < len(self.tokens)
        return token.text in ("(", "[", "{")

    def _power(self) -> Node:
        node = self._postfix()
        if self.accept("^", "**"):
            if self.next_is("circ", "prime") or (self.next_is("{") and self.next_is("circ", "prime", ahead=1)):
                return self._after_superscript(node)
            if (ordinal := self._ordinal()) is not None:
                return Node("unit", (node,), ordinal)
            exponent = self._exponent()
            if node.kind in ("symbol", "constant") and self.accept("_"):
                node = self._subscripted(node)
            return self._tail(choice_of(node, exponent) or Node("power", (node, exponent)))
        return node

    def _ordinal(self) -> str | None:
        """`12^{\\mathrm{th}}`: an ordinal number."""
        ahead = 1 if self.next_is("{") else 0
        token = self.peek(ahead)
        if token is None or token.kind not in ("text", "word") or token.text not in ORDINALS:
            return None
        self.at += 1 + 2 * ahead
        return token.text

    def _after_superscript(self, node: Node) -> Node:
        braced = self.accept("{")
        while self.next_is("circ", "prime"):
            mark = self.take().text
            node = Node("degree", (node,)) if mark == "circ" else primed(node)
        if braced:
            unit = self.peek()
            if unit is not None and unit.kind in ("text", "word"):  # Celsius or Fahrenheit
                node = Node("unit", (node.args[0],), f"degree{self.take().text}")
            self.require("}")
        return self._tail(node)

    def _exponent(self) -> Node:
        if self.next_is("-", "+"):
            negative = self.take().text == "-"
            node = self._power()
            return Node("negate", (node,)) if negative else node
        if self.next_is("{"):
            return self._tight_power(self._braces())
        token = self.peek()
        if token is not None and token.kind == "number":
            self.at += 1
            return self._tight_power(number_node(token.text))
        return self._power()

    def _tight_power(self, node: Node) -> Node:
        return Node("power", (node, self._exponent())) if self.accept("^", "**") else node

    def _postfix(self) -> Node:
        return self._tail(self._atom())

    def _tail(self, node: Node) -> Node:
        """What may follow an operand: factorials, percent signs, degrees, subscripts, primes."""
        while True:
            if self.next_is("!"):
                count = 0
                while self.accept("!"):
                    count += 1
                node = Node("function", (node,), "factorial" if count == 1 else "double_factorial" if count == 2 else "factorials")
            elif self.accept("%"):
                node = Node("percent", (node,))
            elif self._word_ahead("percent", "percentage", "pct", "percents"):
                self.at += 1
                node = Node("percent", (node,))
            elif self.accept("circ", "degree"):
                node = Node("degree", (node,))
            elif self._word_ahead("degrees", "degree", "deg"):
                self.at += 1
                node = Node("degree", (node,))
            elif self.accept("'"):
                node = primed(node)
            elif self.next_is("_"):
                self.at += 1
                node = self._subscripted(node)
            elif self.accept("choose"):
                node = Node("function", (node, self._postfix()), "binomial")
            elif node.kind == "number" and self._word_ahead(*ORDINALS) and not self.tokens[self.at].spaced:
                node = Node("unit", (node,), self.take().text)
            else:
                return node

    def _subscripted(self, node: Node) -> Node:
        subscript = self._argument()
        if node.kind == "number":
            base = base_of(subscript)
            if base is None:
                raise Unreadable("a number has a subscript that is no base")
            return in_base(node, base)
        return Node("symbol", (), f"{name_of(node)}_{name_of(subscript)}")
