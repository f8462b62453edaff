"""What runs in the worker of the last stage: sums, integrals and limits by sympy. Only workers import this module."""

from __future__ import annotations

import sys
from fractions import Fraction
from typing import Any

import sympy

from verifiers.math.answers import compare
from verifiers.math.literals import decimal_value
from verifiers.math.nodes import Node
from verifiers.math.quantities import Rules
from verifiers.math.symbolic import ALGEBRAIC


def judge(gold: str, values: list[str], tolerance: float) -> str:
    """Run in the worker: work out sums, integrals and limits, and compare again. Returns the value of a `Match`."""
    sys.setrecursionlimit(50_000)
    return compare(gold, ", ".join(values), Rules(tolerance), worked_out).value


def worked_out(node: Node) -> Node:
    """Replace every sum, product, integral and limit that sympy can do by its value."""
    if not node.args:
        return node
    node = Node(node.kind, tuple(worked_out(argument) for argument in node.args), node.value)
    if node.kind not in ALGEBRAIC:
        return node
    try:
        value = _from_sympy(_do(node))
    except Exception:  # Boundary: sympy fails in every way on what models write; what it cannot do stays as it is.
        return node
    return node if value is None else value


def _do(node: Node) -> Any:
    body, *rest = (_to_sympy(argument) for argument in node.args)
    if node.kind == "integral":
        return sympy.integrate(body, (rest[0], rest[1], rest[2])) if len(rest) == 3 else sympy.integrate(body, rest[0])
    if node.kind == "limit":
        return sympy.limit(body, rest[0], rest[1])
    return sympy.summation(body, tuple(rest)) if node.kind == "sum" else sympy.product(body, tuple(rest))


class NotTranslated(Exception):
    """The expression has a part that one side does not know."""


def _to_sympy(node: Node) -> Any:
    """Build the sympy expression node by node; sympy's own parser never sees a text."""
    kind = node.kind
    if kind in ("number", "decimal"):
        value = node.value if isinstance(node.value, Fraction) else decimal_value(str(node.value))
        return sympy.Rational(value.numerator, value.denominator)
    if kind == "symbol":
        return sympy.Symbol(str(node.value), real=True)
    if kind == "constant":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infinity": sympy.oo}[str(node.value)]
    args = [_to_sympy(argument) for argument in node.args]
    if kind == "add":
        return sympy.Add(*args)
    if kind == "negate":
        return -args[0]
    if kind == "multiply":
        return sympy.Mul(*args)
    if kind == "divide":
        return args[0] / args[1]
    if kind == "power":
        return sympy.Pow(*args)
    if kind == "function":
        return _sympy_function(str(node.value), args)
    raise NotTranslated(kind)


def _sympy_function(name: str, args: list[Any]) -> Any:
    names = {
        "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin", "arccos": "acos",
        "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "exp": "exp", "ln": "log", "log": "log", "abs": "Abs",
        "floor": "floor", "ceil": "ceiling", "factorial": "factorial", "binomial": "binomial",
    }  # fmt: skip
    if name in ("sqrt", "root"):
        return sympy.root(args[0], args[1] if len(args) > 1 else 2)
    if name == "log_base":
        return sympy.log(args[0], args[1])
    if name not in names:
        raise NotTranslated(name)
    return getattr(sympy, names[name])(*args)


def _from_sympy(value: Any) -> Node | None:
    """Return the tree of a closed form; a number for what only has a numeric value; None for what sympy left as it was."""
    try:
        return _translated(value)
    except NotTranslated:
        pass
    if value.free_symbols:
        return None
    number = sympy.N(value, 45)
    if not number.is_Float:
        return None
    return Node("number", (), Fraction(int(sympy.Rational(number).p), int(sympy.Rational(number).q)))


def _translated(value: Any) -> Node:
    if value.is_Rational:
        return Node("number", (), Fraction(int(value.p), int(value.q)))
    if value.is_Symbol:
        return Node("symbol", (), value.name)
    constants = {sympy.pi: "pi", sympy.E: "e", sympy.I: "i", sympy.oo: "infinity"}
    if value in constants:
        return Node("constant", (), constants[value])
    if value == -sympy.oo:
        return Node("negate", (Node("constant", (), "infinity"),))
    if value.is_Add:
        return Node("add", tuple(_translated(argument) for argument in value.args))
    if value.is_Mul:
        first, *others = (_translated(argument) for argument in value.args)
        for other in others:
            first = Node("multiply", (first, other))
        return first
    if value.is_Pow:
        return Node("power", (_translated(value.base), _translated(value.exp)))
    names = {"log": "ln", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "Abs": "abs", "ceiling": "ceil"}
    name = names.get(value.func.__name__, value.func.__name__)
    if name in (
        "sin",
        "cos",
        "tan",
        "cot",
        "exp",
        "ln",
        "arcsin",
        "arccos",
        "arctan",
        "abs",
        "sinh",
        "cosh",
        "tanh",
        "factorial",
        "binomial",
    ):
        return Node("function", tuple(_translated(argument) for argument in value.args), name)
    raise NotTranslated(name)


# sympy loads much of itself at the first integral; a worker does that before its first deadline begins.
sympy.integrate(sympy.Symbol("x") ** 2, (sympy.Symbol("x"), 0, 1))
