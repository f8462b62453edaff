"""What an equation says: a value for a name, such as `x=5` and `f(x)=2x`, or a statement about its variables."""

from __future__ import annotations

from fractions import Fraction

from verifiers.math.digits import approximate
from verifiers.math.literals import decimal_value
from verifiers.math.nodes import Node
from verifiers.math.scalars import Match, same_value

COLLECTIONS = frozenset({"list", "group", "matrix", "union", "intersection", "difference", "builder", "reals", "empty", "row"})
"""Nodes that hold several values."""


def is_equation(node: Node) -> bool:
    return node.kind == "relation" and set(node.value) <= {"=", "~"}  # type: ignore[arg-type]


def is_name(node: Node) -> bool:
    """Whether an expression names a quantity rather than computing one: `x`, `f(x)`, `a_3`, `T(10)`, `(p,q,r)`, `P(A)`."""
    if node.kind in ("symbol", "text"):
        return True
    if node.kind == "constant":
        return node.value in ("e", "i")
    if node.kind == "apply":
        return node.value not in ("base", "mod")
    if node.kind in ("group", "union", "intersection", "difference"):
        return all(is_name(item) for item in node.args)
    if node.kind == "multiply":
        return is_name(node.args[0]) and (is_name(node.args[1]) or node.args[1].kind in ("number", "relation"))
    if node.kind == "unit":
        return is_name(node.args[0])
    if node.kind == "power":
        return is_name(node.args[0]) and node.args[1] == Node("negate", (Node("number", (), Fraction(1)),))
    return False


def _computes_nothing(node: Node) -> bool:
    """Whether a left side asks a question, as `a+b+c` or `\\frac{AB}{CD}` do, rather than stating an equation, as `2x+3` does."""
    pending = [node]
    found_symbol = False
    while pending:
        inner = pending.pop()
        if inner.kind in ("number", "decimal"):
            return False
        found_symbol |= inner.kind in ("symbol", "text")
        if inner.kind == "power":
            pending.append(inner.args[0])
        elif inner.kind not in ("apply", "function"):
            pending.extend(inner.args)
        else:
            found_symbol = True
    return found_symbol


def value_of(equation: Node) -> Node | None:
    """The value an equation gives to what stands on its left, None where it is a statement about its variables."""
    operands, operators = equation.args, equation.value
    left, right = operands[0], operands[-1]
    if operators == ("~",) and not is_name(left) and not (left.symbols() and _computes_nothing(left)):
        return left
    if len(operands) > 2 and _only_rounds(operands[-2], right):
        right = operands[-2]
    elif len(operands) == 2 and _only_rounds(left, right):
        return left
    if "~" in operators and len(operands) > 2:
        right = operands[operators.index("~")]  # type: ignore[union-attr]
    if is_name(left):
        return right
    if len(operands) == 2 and is_name(right) and not left.symbols():
        return left
    if not left.symbols() and left.kind not in COLLECTIONS:
        return right if same_value(left, right) is Match.EQUAL else None
    zero = right.kind == "number" and right.value == 0
    return right if _computes_nothing(left) and not zero else None


def _only_rounds(value: Node, decimal: Node) -> bool:
    r"""Whether a decimal behind an equals sign gives a constant before it in short: `\frac{1}{3} = 0.333`."""
    if decimal.kind != "decimal" or value.kind == "decimal" or value.symbols():
        return False
    exactly, written = approximate(value, {}), decimal_value(str(decimal.value))
    decimals = len(str(decimal.value).partition("e")[0].partition(".")[2])
    return exactly is not None and exactly != written and abs(exactly - written) <= Fraction(1, 10**decimals)


def names_a_value(equation: Node) -> bool:
    """Whether the left side names or measures one quantity, or the right side is a name for a constant on the left."""
    left = equation.args[0]
    measured = left.args[0] if left.kind == "power" else left
    if measured.kind == "function" and _computes_nothing(left):
        return True  # `|AB|`, `\\tan\\alpha`, `\\sin^2 x`
    return is_name(left) or not left.symbols() or (left.kind in ("ratio", "divide") and all(is_name(part) for part in left.args))


def renamed_value(first: Node, second: Node, value: Node) -> Node | None:
    """The second equation's value in the first's terms where both define the same thing; None where they define different things."""
    if first == second:
        return value
    if first.kind == second.kind == "apply" and len(first.args) == len(second.args):
        if all(argument.kind == "symbol" for argument in (*first.args, *second.args)):
            names = dict(zip((str(a.value) for a in second.args), (str(a.value) for a in first.args), strict=True))
            same_function = first.value == second.value or str(second.value) not in {
                str(n.value) for n in value.walk() if n.kind == "apply"
            }
            clash = (value.symbols() - set(names)) & set(names.values())  # `f(y)=2x` is not `f(x)=2x`
            return _with_names(value, names) if same_function and not clash else None
    if "apply" in (first.kind, second.kind) and is_name(first) and is_name(second) and first.kind != second.kind:
        return value  # `y=2x` and `f(x)=2x`
    if not is_name(first) or not is_name(second):
        return value if is_name(first) and _computes_nothing(second) else None
    if {first.kind, second.kind} <= {"symbol", "constant", "text"}:
        return value if str(first.value).lower() == str(second.value).lower() else None
    return value if same_value(first, second) is Match.EQUAL else None


def _with_names(node: Node, names: dict[str, str]) -> Node:
    if node.kind == "symbol":
        return Node("symbol", (), names.get(str(node.value), str(node.value)))
    return Node(node.kind, tuple(_with_names(argument, names) for argument in node.args), node.value) if node.args else node


def difference(equation: Node) -> Node:
    return Node("add", (equation.args[0], Node("negate", (equation.args[1],))))
