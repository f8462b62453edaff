"""The syntax tree of an answer: what was written, before anybody asks what it equals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Kind = Literal[
    "number",  # value: a Fraction; written as an integer
    "decimal",  # value: the digits as written, such as "0.50" or "1.5e-3"
    "symbol",  # value: the name, with its subscript and primes
    "constant",  # value: pi, e, i, infinity
    "add",
    "multiply",
    "divide",
    "negate",
    "power",
    "plus_minus",  # args: the term that takes the sign; value: the sign in the first reading, + or -
    "function",  # value: a function that can be evaluated, such as sin or binomial
    "apply",  # value: the name of a function that cannot, such as f
    "sum",  # args: body, index, lower, upper; so too "product" and "integral"
    "product",
    "integral",
    "limit",  # args: body, variable, point
    "percent",
    "degree",
    "unit",  # args: the quantity; value: the unit as written
    "group",  # items in brackets; value: the two brackets, such as (] or {}
    "list",  # items without brackets
    "relation",  # args: the operands; value: the operators between them
    "union",
    "intersection",
    "difference",
    "builder",  # {x | condition}; args: the variable and the condition
    "matrix",  # args: rows
    "row",
    "ratio",
    "reals",
    "empty",
    "text",  # value: words, in lower case
]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation with its operands; equal nodes were written alike."""

    kind: Kind
    args: tuple[Node, ...] = ()
    value: Fraction | str | tuple[str, ...] = ""

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.args)

    def has_symbols(self) -> bool:
        """Whether there is a variable below."""
        return any(node.kind == "symbol" for node in self.walk())

    def symbols(self) -> frozenset[str]:
        """Return the names of the variables below."""
        return frozenset(str(node.value) for node in self.walk() if node.kind == "symbol")


def number(value: Fraction | int) -> Node:
    """Return the node of a rational number."""
    return Node("number", (), Fraction(value))


ZERO, ONE, TWO = number(0), number(1), number(2)
INFINITY = Node("constant", (), "infinity")


def substitute(node: Node, values: Mapping[str, int]) -> Node:
    """Return the expression with whole numbers in place of variables."""
    if node.kind == "symbol":
        return number(values[str(node.value)]) if str(node.value) in values else node
    if not node.args:
        return node
    return Node(node.kind, tuple(substitute(argument, values) for argument in node.args), node.value)
