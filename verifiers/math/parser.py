r"""Reads a cleaned formula into a syntax tree: LaTeX, plain notation and the mixtures that models write.

A parser of our own by measurement (docs/decisions/0003-math-parser.md): it never hands text to an interpreter, reads what others drop
silently (base subscripts, units, set brackets), and its work is bounded by the number of tokens and by `MAX_DEPTH`.
"""

from __future__ import annotations

from fractions import Fraction

from verifiers.math.lexer import Token, Unreadable, tokenize
from verifiers.math.nodes import ONE, TWO, Node, number
from verifiers.math.units import TABLE, is_unit

MAX_DEPTH = 240
MAX_CHARACTERS = 10_000
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth ln log lg exp sqrt abs gcd lcm max min "
    "floor ceil det arcsinh arccosh arctanh sgn cis".split()
)
ALIASES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "cosec": "csc",
    "tg": "tan",
    "ctg": "cot",
    "arctg": "arctan",
    "sign": "sgn",
}
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
INVERSES |= {"sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau upsilon phi varphi "
    "chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar partial nabla aleph".split()
)
RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "=<": "<=", "!=": "!=", "<>": "!=",
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~", "cong": "~", "sim": "~", "doteq": "~", "thickapprox": "~",
    "in": "in", "equiv": "===", "subset": "subset", "subseteq": "subset", "mid": "|", "to": "->", "rightarrow": "->",
    "implies": "->", "Rightarrow": "->", "iff": "->", "notin": "notin", "perp": "perp", "parallel": "parallel",
}  # fmt: skip
CLAUSES = ("for all", "for every", "for any", "for each", "for some integer", "for positive", "for integer")
SEPARATORS = frozenset({"and", "or", "&", "and/or", "or else"})
CONSTANT_WORDS = {"pi": "pi", "infty": "infinity", "infinity": "infinity", "inf": "infinity", "oo": "infinity", "i": "i", "e": "e"}
MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"})
CLOSERS = {"(": ")]", "[": ")]"}
ORDINALS = ("th", "st", "nd", "rd")
UNKNOWN_FUNCTIONS = frozenset("fgh")
OTHER_SYMBOLS = frozenset("forall exists neg star square odot oplus otimes dagger bot top Re Im ldots cdots dots checkmark bigcirc".split())


def parse(text: str, *, thousands: bool = True) -> Node:
    """Return the tree of one cleaned answer (see `clean`).

    Raises: Unreadable: it is no formula: unbalanced, too long, too deep, or words.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"longer than {MAX_CHARACTERS} characters")
    tokens = _without_idle_brackets(tokenize(text, thousands=thousands))
    if not tokens:
        raise Unreadable("nothing is there")
    parser = Parser(tokens)
    tree = parser.items()
    parser.expect_end()
    return tree


def _without_idle_brackets(tokens: list[Token]) -> list[Token]:
    """Drop all but one of brackets that directly enclose brackets: `((((1))))` is `(1)`."""
    partner: dict[int, int] = {}
    opened: list[int] = []
    for index, token in enumerate(tokens):
        if token.kind == "mark" and token.text in ("(", "{"):
            opened.append(index)
        elif token.kind == "mark" and token.text in (")", "}") and opened:
            partner[opened.pop()] = index
    idle = set()
    for start, end in partner.items():
        if tokens[start].text == tokens[start + 1].text and partner.get(start + 1) == end - 1:
            # `f{{x}}` keeps its outer pair; which of the two goes makes no difference.
            idle |= {start + 1, end - 1}
    return [token for index, token in enumerate(tokens) if index not in idle] if idle else tokens


class Parser:
    """Recursive descent with precedences; one instance reads one list of tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0  # absolute values that are open: a bar then closes
        self.conditions = 0  # set builders that are open: a bar there begins the condition

    # --- tokens

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

    # --- lists and relations

    def items(self) -> Node:
        """A list without brackets, or its only item. Semicolons bind weaker than commas."""
        groups: list[list[Node]] = [[]]
        while True:
            while self._separator():
                pass
            if groups[-1] and self._clause_ahead():
                self.at = len(self.tokens)
            if self.peek() is None or self.next_is(")", "]", "}", "\\}", "&", "\\", "end cases", "end aligned", "end array"):
                break
            groups[-1].append(self.relation())
            if self.next_is(";"):
                groups.append([])
            elif not self._separator_ahead():
                if self.depth == 0 and self._clause_ahead():
                    self.at = len(self.tokens)
                break
        groups = [group for group in groups if group]
        if not groups:
            raise Unreadable("nothing is there")
        if len(groups) > 1 and any(len(group) > 1 for group in groups):
            items = [group[0] if len(group) == 1 else Node("group", tuple(group), "()") for group in groups]
        else:
            items = [item for group in groups for item in group]
        return items[0] if len(items) == 1 else Node("list", tuple(items))

    def _clause_ahead(self) -> bool:
        """Words that only say for which variables an answer holds: `f(x) = 1 \\text{ for all } x`."""
        token = self.peek()
        return token is not None and token.kind in ("text", "word") and token.text.lower().startswith(CLAUSES)

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

    def relation(self) -> Node:
        """Operands with `=`, `<`, `in`, … between them."""
        operands, operators = [self.ratio()], []
        while (token := self.peek()) is not None and token.kind in ("mark", "command") and token.text in RELATIONS:
            if token.text == "mid" and self.conditions:
                break
            self.at += 1
            if token.text == "=" and self.peek() is None:
                raise Unreadable("nothing stands behind '='")
            operators.append(RELATIONS[token.text])
            operands.append(self.ratio())
        return operands[0] if not operators else Node("relation", tuple(operands), tuple(operators))

    def ratio(self) -> Node:
        parts = [self.set_expression()]
        while self.next_is(":") and not self.conditions:
            self.at += 1
            parts.append(self.set_expression())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def set_expression(self) -> Node:
        node = self.sum()
        while True:
            if self.accept("cup", "bigcup", "cupdot", "sqcup"):
                node = Node("union", (node, self.sum()))
            elif self._word_ahead("U") and node.kind in ("group", "union"):
                self.at += 1
                node = Node("union", (node, self.sum()))
            elif self.accept("cap", "bigcap"):
                node = Node("intersection", (node, self.sum()))
            elif self.accept("setminus", "backslash"):
                node = Node("difference", (node, self.sum()))
            else:
                return node

    def _word_ahead(self, *words: str) -> bool:
        token = self.peek()
        return token is not None and token.kind in ("word", "text") and token.text in words

    # --- arithmetic

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
                node = Node("multiply", (node, self._power()))
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
            return is_unit(token.text) or (token.spaced and len(token.text) > 2 and not node.symbols() and self._only_words_ahead())
        return self._unit_fraction_ahead()

    def _only_words_ahead(self) -> bool:
        """Whether a plain word begins a run of words up to the next separator or the end: `12 apples`."""
        for token in self.tokens[self.at :]:
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
            return self._tail(Node("power", (node, exponent)))
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
            node = Node("degree", (node,)) if mark == "circ" else _primed(node)
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
            return self._tight_power(_number(token.text))
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
                node = _primed(node)
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
            base = _base_of(subscript)
            if base is None:
                raise Unreadable("a number has a subscript that is no base")
            return _in_base(node, base)
        return Node("symbol", (), f"{_name(node)}_{_name(subscript)}")

    # --- operands

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
        bars, self.bars, conditions, self.conditions = self.bars, 0, self.conditions, 0
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
            return _number(token.text)
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
        if following is not None and words.lower().rstrip(" :") in (
            "only",
            "where",
            "either",
            "both",
            "if",
            "for",
            "answer",
            "length",
            "area",
        ):
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
        if brackets == "()" or node.kind == "matrix":
            return node
        # A single item in square brackets groups, as round ones do, where something stands beside it.
        return (
            node
            if self._factor_ahead() or self.next_is("^", "*", "+", "-", "/") or self.at > 2 + len(self.tokens) // 2
            else Node("group", (node,), brackets)
        )

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

    def _function(self, name: str) -> Node:
        """A named function with its power, base and argument: `\\sin^2 x`, `\\log_2 8`, `\\tan^{-1} x`."""
        base: Node | None = None
        power: Node | None = None
        while self.next_is("_", "^"):
            if self.take().text == "_":
                base = self._argument()
            else:
                power = self._exponent() if self.next_is("-") else self._argument()
        if name in ("max", "min", "gcd", "lcm") or self.next_is("("):
            inner = self._call_argument(name)
        elif name == "sqrt":
            inner = self._argument()
        else:
            inner = self._function_argument()
        args = inner.args if inner.kind == "list" else (inner,)
        if power is not None and power == Node("negate", (ONE,)) and name in INVERSES:
            name, power = INVERSES[name], None
        if name == "lg":
            base = number(10)
        node = Node("function", (*args, base) if base is not None else args, "log_base" if base is not None else name)
        return node if power is None else Node("power", (node, power))

    def _call_argument(self, name: str) -> Node:
        if not self.next_is("("):
            return self._function_argument()
        self.require("(")
        inner = self.items()
        self.require(")")
        if name not in ("max", "min", "gcd", "lcm", "log") and inner.kind == "list":
            raise Unreadable(f"{name} of several values")
        if name == "log" and inner.kind == "list":
            if len(inner.args) != 2:
                raise Unreadable("log of several values")
            return Node("function", inner.args, "log_base")
        if self.next_is("^", "**") and name not in ("sqrt", "exp"):
            # `\\sin(x)^2` is the square of the sine.
            return self._tail(inner)
        return inner

    def _function_argument(self) -> Node:
        """Factors up to the next sign, operator or function: `\\sin 2x \\cos x` is a product of two."""
        negative = self.next_is("-")
        if negative:
            self.at += 1
        node = self._power()
        while self._factor_ahead() and not self._function_ahead() and not self.next_is("(", "["):
            node = Node("multiply", (node, self._power()))
        while (
            self.next_is("/") and (after := self.peek(1)) is not None and after.kind in ("number", "word") and not self._function_ahead(1)
        ):
            self.at += 1
            node = Node("divide", (node, self._power()))
        return Node("negate", (node,)) if negative else node

    def _function_ahead(self, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind in ("word", "command") and ALIASES.get(token.text, token.text) in FUNCTIONS

    # --- commands

    def _command(self, token: Token) -> Node:
        name = ALIASES.get(token.text, token.text)
        if name == "frac":
            return Node("divide", (self._fraction_argument(), self._fraction_argument()))
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return Node("text", (), name) if self.next_is("}") else self._function(name)
        if name in CONSTANT_WORDS:
            return Node("constant", (), CONSTANT_WORDS[name])
        if name in GREEK:
            return Node("symbol", (), name)
        if name in ("binom", "dbinom", "tbinom"):
            return Node("function", (self._argument(), self._argument()), "binomial")
        if name == "{":
            return self._set()
        if name in ("lfloor", "lceil", "lvert", "lVert", "langle"):
            return self._fenced(name)
        if name in ("vert", "|"):
            node = self.items()
            self.require("vert", "|")
            return Node("function", (node,), "abs")
        if name.startswith("begin "):
            return self._environment(name[6:])
        if name in ("sum", "prod", "int", "lim"):
            return self._big_operator(name)
        if name in ("overline", "bar", "widehat", "hat", "vec", "overrightarrow", "underline", "tilde", "widetilde", "overarc"):
            return Node("symbol", (), f"{name}({_name(self._argument())})")
        if name in ("emptyset", "varnothing"):
            return Node("empty")
        if name.startswith("mathbb "):
            letter = name[7:]
            return Node("reals") if letter in ("R", "r") else Node("symbol", (), f"set {letter}")
        if name in ("boxed", "fbox", "operatorname", "textbf", "mathbf", "ensuremath", "mathopen", "mathclose", "mathrm", "text"):
            return self._argument()
        if name in ("angle", "triangle", "measuredangle"):
            return Node("symbol", (), f"{name}({_name(self._power())})")
        if name in OTHER_SYMBOLS:
            return Node("symbol", (), name)
        if name in ("$", "quad"):
            return self._atom()
        if name == "circ":
            return Node("degree", (ONE,))
        raise Unreadable(f"the command \\{name[:20]}")

    def _root(self) -> Node:
        degree = TWO
        if self.accept("["):
            degree = self.items()
            self.require("]")
        if self.next_is("("):
            self.at += 1
            return Node("function", (self._bracketed("("), degree), "root")
        return Node("function", (self._argument(), degree), "root")

    def _set(self) -> Node:
        if self.accept("}"):
            return Node("empty")
        bars, self.bars, conditions, self.conditions = self.bars, 0, self.conditions, 1
        node = self.items()
        if self.next_is("|", "mid", ":"):
            node = self._builder(node)
        self.conditions = conditions
        self.bars = bars
        self.require("}")
        if node.kind == "builder":
            return node
        return Node("group", node.args if node.kind == "list" else (node,), "{}")

    def _fenced(self, name: str) -> Node:
        node = self.items()
        closing = {"lfloor": "rfloor", "lceil": "rceil", "lvert": "rvert", "lVert": "rVert", "langle": "rangle"}[name]
        self.require(closing)
        if name == "langle":
            return Node("group", node.args if node.kind == "list" else (node,), "()")
        return Node("function", (node,), {"lfloor": "floor", "lceil": "ceil"}.get(name, "abs"))

    def _environment(self, name: str) -> Node:
        if name not in MATRICES and name not in ("vmatrix", "cases", "aligned", "align", "gathered"):
            raise Unreadable(f"the environment {name!r}")
        rows: list[Node] = []
        cells: list[Node] = []
        while not self.next_is(f"end {name}"):
            if self.accept("&"):
                continue
            if self.accept("\\"):
                rows += [Node("row", tuple(cells))] if cells else []
                cells = []
                continue
            if self.accept("hline"):
                continue
            cells.append(self.items())
        self.at += 1
        rows += [Node("row", tuple(cells))] if cells else []
        if not rows:
            raise Unreadable("an empty matrix")
        if name in MATRICES or name == "vmatrix":
            if len({len(row.args) for row in rows}) > 1:
                raise Unreadable("rows of unequal length")
            matrix = Node("matrix", tuple(rows))
            return Node("function", (matrix,), "det") if name == "vmatrix" else matrix
        return Node("list", tuple(row.args[0] if len(row.args) == 1 else Node("group", row.args, "()") for row in rows))

    def _big_operator(self, name: str) -> Node:
        lower: Node | None = None
        upper: Node | None = None
        while self.next_is("_", "^"):
            if self.take().text == "_":
                lower = self._limits()
            else:
                upper = self._argument()
        if name == "int":
            return self._integral(lower, upper)
        body = self._term()
        if name == "lim":
            if lower is None or lower.kind != "relation" or lower.value != ("->",):
                raise Unreadable("a limit without its point")
            return Node("limit", (body, *lower.args))
        if lower is None or upper is None or lower.kind != "relation" or lower.value != ("=",):
            raise Unreadable(f"a {name} without its bounds")
        return Node("sum" if name == "sum" else "product", (body, lower.args[0], lower.args[1], upper))

    def _limits(self) -> Node:
        return self._braces() if self.next_is("{") else self._argument()

    def _integral(self, lower: Node | None, upper: Node | None) -> Node:
        """The integrand ends at `d` and its variable."""
        depth = 0
        for end in range(self.at, len(self.tokens)):
            token = self.tokens[end]
            depth += (token.text in ("(", "{", "[")) - (token.text in (")", "}", "]"))
            if depth < 0:
                break
            if depth == 0 and token.kind == "word" and token.text.startswith("d") and len(token.text) <= 2:
                variable = token.text[1:] or (self.tokens[end + 1].text if end + 1 < len(self.tokens) else "")
                inner = Parser(self.tokens[self.at : end])
                inner.depth = self.depth
                body = inner.sum() if end > self.at else ONE
                inner.expect_end()
                self.at = end + (1 if token.text[1:] else 2)
                symbol = Node("symbol", (), variable)
                return Node("integral", (body, symbol) if lower is None or upper is None else (body, symbol, lower, upper))
        raise Unreadable("an integral without its variable")


def _number(text: str) -> Node:
    if text.isdigit():
        if len(text) > 4000:
            raise Unreadable("a number of more than 4000 digits")
        return number(int(text))
    digits, _, exponent = text.partition("e")
    if exponent and abs(int(exponent)) > 400:
        return Node("multiply", (_number(digits), Node("power", (number(10), number(int(exponent))))))
    return Node("decimal", (), text)


def decimal_value(literal: str) -> Fraction:
    """Return the exact value of a decimal as written."""
    digits, _, exponent = literal.partition("e")
    value = Fraction(digits if not digits.endswith(".") else digits[:-1])
    return value * Fraction(10) ** int(exponent) if exponent else value


def _in_base(node: Node, base: int) -> Node:
    digits = str(node.value)
    if not digits.isdigit() or any(int(digit) >= base for digit in digits):
        raise Unreadable(f"{digits[:40]} has digits that base {base} lacks")
    return Node("apply", (node, number(base)), "base")


def _base_of(node: Node) -> int | None:
    words = {
        "two": 2,
        "three": 3,
        "four": 4,
        "five": 5,
        "six": 6,
        "seven": 7,
        "eight": 8,
        "nine": 9,
        "ten": 10,
        "twelve": 12,
        "sixteen": 16,
    }
    if node.kind == "text":
        return words.get(str(node.value))
    if node.kind == "number" and 2 <= node.value <= 36:  # type: ignore[operator]
        return int(node.value)  # type: ignore[arg-type]
    return None


def _primed(node: Node) -> Node:
    return Node("symbol", (), f"{_name(node)}'")


def _name(node: Node) -> str:
    """A symbol's name as text, with whatever stands in its subscript."""
    if node.kind in ("symbol", "constant", "text", "decimal"):
        return str(node.value)
    if node.kind == "number":
        return str(node.value)
    if node.kind in ("multiply", "add", "negate", "list", "group", "apply", "power", "divide", "function"):
        inner = {"add": "+", "negate": "-", "multiply": "", "list": ",", "group": ","}.get(node.kind, f" {node.kind} ")
        own = node.value if isinstance(node.value, str) else ""
        return own + inner.join(_name(argument) for argument in node.args) + ("-" if node.kind == "negate" else "")
    if node.kind == "relation":
        return "=".join(_name(argument) for argument in node.args)
    raise Unreadable("a subscript that is no name")
