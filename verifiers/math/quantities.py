"""Single values: with units, degrees and percent signs, and how near a decimal has to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from verifiers.math.digits import approximate
from verifiers.math.literals import decimal_value
from verifiers.math.nodes import Node, number
from verifiers.math.scalars import Match, same_value
from verifiers.math.units import parse_unit, scale_and_unit

EQUAL, DIFFERENT = Match.EQUAL, Match.DIFFERENT
FLOAT_DIGITS = 10
"""From so many significant digits on a decimal is read as a printed float, which stands for the number it is nearest to."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How near is near enough: `tolerance` is relative; 0 means exact, except for what docs/math-verifier.md says of decimals."""

    tolerance: float = 0.0


def compare_texts(gold: Node, answer: Node) -> Match:
    if gold.kind == answer.kind == "text":
        return EQUAL if gold.value == answer.value else DIFFERENT
    word, other = (gold, answer) if gold.kind == "text" else (answer, gold)
    return EQUAL if other.kind == "symbol" and str(other.value).lower() == word.value else DIFFERENT


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value without its unit, and what was taken off it."""

    value: Node
    unit: str = ""
    percent: bool = False
    degree: bool = False


def _quantity(node: Node) -> Quantity:
    quantity = Quantity(node)
    sign = False
    while True:
        node = quantity.value
        if node.kind == "unit":
            scale, unit = scale_and_unit(str(node.value))
            value = node.args[0] if scale == 1 else Node("multiply", (node.args[0], number(scale)))
            quantity = replace(quantity, value=value, unit=quantity.unit or unit)
        elif node.kind == "percent":
            quantity = replace(quantity, value=node.args[0], percent=True)
        elif node.kind == "degree":
            quantity = replace(quantity, value=node.args[0], degree=True)
        elif node.kind == "negate" and node.args[0].kind in ("unit", "percent", "degree"):
            quantity, sign = replace(quantity, value=node.args[0]), not sign
        elif node.kind == "multiply" and node.args[1].kind in ("degree", "percent", "unit") and node.args[0].kind != "unit":
            inner = node.args[1]
            quantity = replace(quantity, value=Node(inner.kind, (Node("multiply", (node.args[0], inner.args[0])),), inner.value))
        else:
            break
    return replace(quantity, value=Node("negate", (quantity.value,))) if sign else quantity


def compare_quantities(gold: Node, answer: Node, rules: Rules) -> Match:
    one, two = _quantity(gold), _quantity(answer)
    if one.degree != two.degree:
        other = two if one.degree else one
        if other.percent or _measures(other.unit):
            return DIFFERENT
        plain = _compare_values(one.value, two.value, rules)
        if plain is EQUAL:
            return plain
        radians = [Node("degree", (q.value,)) if q.degree else q.value for q in (one, two)]
        return same_value(radians[0], radians[1])
    if one.unit and two.unit:
        converted = _converted(one, two, rules)
        if converted is not None:
            return converted
    result = _compare_values(one.value, two.value, rules)
    if result is not EQUAL and one.percent != two.percent:
        hundredth = [Node("percent", (q.value,)) if q.percent else q.value for q in (one, two)]
        exact_values = [Node("divide", (n.args[0], Node("number", (), Fraction(100)))) if n.kind == "percent" else n for n in hundredth]
        return _compare_values(exact_values[0], exact_values[1], rules)
    return result


def _measures(unit: str) -> bool:
    """Whether a unit measures something that is no angle."""
    known = parse_unit(unit) if unit else None
    return known is not None and known.dimension not in ((), (("angle", 1),), (("radians", 1),))


def _converted(one: Quantity, two: Quantity, rules: Rules) -> Match | None:
    """Compare 5 cm with 5 m; None where one of the units is no unit we know, such as apples."""
    first, second = parse_unit(one.unit), parse_unit(two.unit)
    if first is None or second is None or not first.dimension or not second.dimension:
        return None
    if first.dimension != second.dimension:
        return DIFFERENT
    if first.factor == second.factor:
        return None
    factor = Node("number", (), second.factor / first.factor)
    return _compare_values(one.value, Node("multiply", (two.value, factor)), rules)


def _compare_values(gold: Node, answer: Node, rules: Rules) -> Match:
    if gold.kind == "text" or answer.kind == "text":
        return compare_texts(gold, answer)
    if gold.kind == "apply" and gold.value == "base":
        # The numeral is what was asked for, not its value; the base may go without saying.
        return EQUAL if answer in (gold, gold.args[0]) else DIFFERENT
    result = same_value(gold, answer)
    if result is EQUAL or gold.symbols() or answer.symbols():
        return result
    if _near(gold, answer, rules):
        return EQUAL
    return result


def _near(gold: Node, answer: Node, rules: Rules) -> bool:
    r"""Whether a decimal says the value as well as it was asked for.

    A printed float (ten significant digits or more) stands for what it approximates. A gold decimal of three significant digits or more
    accepts an exact answer that rounds to it. A shorter decimal for an exact gold is another number, unless `tolerance` allows it.
    """
    one, two = approximate(gold, {}), approximate(answer, {})
    if one is None or two is None:
        return False
    gap = abs(one - two)
    if rules.tolerance and gap <= Fraction(repr(rules.tolerance)) * abs(one):
        return True
    gold_literal, answer_literal = _literal(gold), _literal(answer)
    if answer_literal is not None and _significant(answer_literal) >= FLOAT_DIGITS and "." in answer_literal:
        if gap <= abs(one) / 10 ** (FLOAT_DIGITS - 1):
            return True
        return gold_literal is not None and "." in gold_literal and _significant(gold_literal) >= 3 and gap <= _half_step(gold_literal)
    if gold_literal is None or "." not in gold_literal or decimal_value(gold_literal).denominator == 1:
        return False
    if _significant(gold_literal) >= FLOAT_DIGITS and gap <= abs(one) / 10 ** (FLOAT_DIGITS - 1):
        return True
    return answer_literal is None and _significant(gold_literal) >= 3 and gap <= _half_step(gold_literal)


def _literal(node: Node) -> str | None:
    """The digits of a value written as a plain number, None of an expression."""
    if node.kind == "negate":
        return _literal(node.args[0])
    if node.kind == "decimal":
        return str(node.value)
    if node.kind == "number":
        return str(node.value)
    if node.kind == "divide" and node.args[1] == Node("number", (), Fraction(100)):  # a percentage, read as its share
        inner = _literal(node.args[0])
        return None if inner is None else _shifted(inner)
    return None


def _shifted(literal: str) -> str:
    digits, _, exponent = literal.partition("e")
    return f"{digits if '.' in digits else digits + '.'}e{int(exponent or 0) - 2}"


def _significant(literal: str) -> int:
    return len(literal.partition("e")[0].replace(".", "").lstrip("0"))


def _half_step(literal: str) -> Fraction:
    digits, _, exponent = literal.partition("e")
    decimals = len(digits.partition(".")[2])
    return Fraction(1, 2) * Fraction(10) ** (int(exponent or 0) - decimals)
