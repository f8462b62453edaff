r"""What LaTeX commands and named functions make: fractions, roots, sets, matrices, sums, `\\sin^2 x`, `\\log_2 8`."""

from __future__ import annotations

from verifiers.math.cursor import Cursor
from verifiers.math.lexer import Token, Unreadable
from verifiers.math.literals import name_of
from verifiers.math.nodes import ONE, TWO, Node, number
from verifiers.math.vocabulary import ALIASES, CONSTANT_WORDS, ENVIRONMENTS_OF_SYSTEMS, FUNCTIONS, GREEK, INVERSES, MATRICES, OTHER_SYMBOLS


class Commands(Cursor):
    """The part of the grammar behind a backslash or a function's name."""

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
            return Node("symbol", (), f"{name}({name_of(self._argument())})")
        if name in ("emptyset", "varnothing"):
            return Node("empty")
        if name.startswith("mathbb "):
            letter = name[7:]
            return Node("reals") if letter in ("R", "r") else Node("symbol", (), f"set {letter}")
        if name in ("boxed", "fbox", "operatorname", "textbf", "mathbf", "ensuremath", "mathopen", "mathclose", "mathrm", "text"):
            return self._argument()
        if name in ("angle", "triangle", "measuredangle"):
            return Node("symbol", (), f"{name}({name_of(self._power())})")
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
        if self._environment_ahead():
            # `\\left\\{\\begin{array}…\\end{array}\\right.`: a system of equations.
            system = self._atom()
            if not self.accept("}") and system.kind == "matrix" and all(len(row.args) == 1 for row in system.args):
                return Node("list", tuple(row.args[0] for row in system.args))
            return system
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

    def _environment_ahead(self) -> bool:
        token = self.peek()
        return token is not None and token.kind == "command" and token.text in ENVIRONMENTS_OF_SYSTEMS

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
                inner = type(self)(self.tokens[self.at : end])
                inner.depth = self.depth
                body = inner.sum() if end > self.at else ONE
                inner.expect_end()
                self.at = end + (1 if token.text[1:] else 2)
                symbol = Node("symbol", (), variable)
                return Node("integral", (body, symbol) if lower is None or upper is None else (body, symbol, lower, upper))
        raise Unreadable("an integral without its variable")

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
