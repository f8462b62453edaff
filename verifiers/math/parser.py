r"""Reads a cleaned formula into a syntax tree: LaTeX, plain notation and the mixtures that models write.

A parser of our own by measurement (docs/decisions/0003-math-parser.md): it never hands text to an interpreter, reads what others drop
silently (base subscripts, units, set brackets), and its work is bounded by the number of tokens and by the depth of nesting.
"""

from __future__ import annotations

from verifiers.math.arithmetic import Arithmetic
from verifiers.math.lexer import Token, Unreadable, tokenize
from verifiers.math.nodes import Node
from verifiers.math.vocabulary import RELATIONS

MAX_CHARACTERS = 10_000


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


class Parser(Arithmetic):
    """Recursive descent with precedences; one instance reads one list of tokens."""

    def items(self) -> Node:
        """A list without brackets, or its only item. Semicolons bind weaker than commas."""
        groups: list[list[Node]] = [[]]
        alternatives = False
        while True:
            while self._separator_ahead():
                alternatives |= self.take().text.strip(" ,").lower() == "or" and bool(groups[-1])
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
        return items[0] if len(items) == 1 else Node("list", tuple(items), "or" if alternatives else "")

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
