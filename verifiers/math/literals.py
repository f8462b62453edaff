"""Numbers and names as they are written: decimals, numerals in other bases, names with subscripts and primes."""

from __future__ import annotations

from fractions import Fraction

from verifiers.math.lexer import Unreadable
from verifiers.math.nodes import Node, number

MAX_DIGITS = 4000
MAX_EXPONENT = 400


def number_node(text: str) -> Node:
    if text.isdigit():
        if len(text) > MAX_DIGITS:
            raise Unreadable("a number of more than 4000 digits")
        return number(int(text))
    digits, _, exponent = text.partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        return Node("multiply", (number_node(digits), Node("power", (number(10), number(int(exponent))))))
    return Node("decimal", (), text)


def decimal_value(literal: str) -> Fraction:
    """Return the exact value of a decimal as written."""
    digits, _, exponent = literal.partition("e")
    value = Fraction(digits if not digits.endswith(".") else digits[:-1])
    return value * Fraction(10) ** int(exponent) if exponent else value


def in_base(node: Node, base: int) -> Node:
    digits = str(node.value)
    if not digits.isdigit() or any(int(digit) >= base for digit in digits):
        raise Unreadable(f"{digits[:40]} has digits that base {base} lacks")
    return Node("apply", (node, number(base)), "base")


def base_of(node: Node) -> int | None:
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


def choice_of(node: Node, upper: Node) -> Node | None:
    """`C_5^2` is the number of choices of 2 out of 5, `A_5^2` and `P_5^2` that of arrangements."""
    name, _, lower = str(node.value).partition("_") if node.kind == "symbol" else ("", "", "")
    if name not in ("C", "A", "P") or not lower.isdigit() or upper.kind != "number" or not 0 <= upper.value <= int(lower):  # type: ignore[operator]
        return None
    choices = Node("function", (number(int(lower)), upper), "binomial")
    return choices if name == "C" else Node("multiply", (choices, Node("function", (upper,), "factorial")))


def primed(node: Node) -> Node:
    return Node("symbol", (), f"{name_of(node)}'")


def name_of(node: Node) -> str:
    """A symbol's name as text, with whatever stands in its subscript."""
    if node.kind in ("symbol", "constant", "text", "decimal"):
        return str(node.value)
    if node.kind == "number":
        return str(node.value)
    if node.kind in ("multiply", "add", "negate", "list", "group", "apply", "power", "divide", "function"):
        inner = {"add": "+", "negate": "-", "multiply": "", "list": ",", "group": ","}.get(node.kind, f" {node.kind} ")
        own = node.value if isinstance(node.value, str) else ""
        return own + inner.join(name_of(argument) for argument in node.args) + ("-" if node.kind == "negate" else "")
    if node.kind == "relation":
        return "=".join(name_of(argument) for argument in node.args)
    raise Unreadable("a subscript that is no name")
