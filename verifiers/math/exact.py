"""What a constant equals exactly, as a fraction; bounded in the length of the numbers and the number of steps."""

from __future__ import annotations

import math
from fractions import Fraction

from verifiers.math.clock import check_time
from verifiers.math.literals import decimal_value
from verifiers.math.nodes import Node

MAX_BITS = 40_000
"""Longer exact numbers are compared modulo primes instead."""
MAX_STEPS = 40_000


class NoValue(Exception):
    """The expression has no value here: a zero divisor, a logarithm of zero, the root of a negative number where reals are asked for."""


class OutOfReach(Exception):
    """This way of evaluating does not know the expression, or it would take too long."""


def exact(node: Node) -> Fraction | None:
    """Return the rational value of a constant, None where it is not rational, not constant, or too long.

    Raises: NoValue: it divides by zero.
    """
    try:
        return _exact(node, [MAX_STEPS])
    except OutOfReach:
        return None


def _exact(node: Node, budget: list[int]) -> Fraction:
    budget[0] -= 1
    if budget[0] < 0:
        raise OutOfReach
    check_time()
    kind, args = node.kind, node.args
    if kind == "number":
        assert isinstance(node.value, Fraction)
        return node.value
    if kind == "decimal":
        return decimal_value(str(node.value))
    if kind == "add":
        return _short(sum((_exact(argument, budget) for argument in args), Fraction(0)))
    if kind == "negate":
        return -_exact(args[0], budget)
    if kind == "multiply":
        return _short(_exact(args[0], budget) * _exact(args[1], budget))
    if kind == "divide" or (kind == "ratio" and len(args) == 2):
        under = _exact(args[1], budget)
        if under == 0:
            raise NoValue("division by zero")
        return _short(_exact(args[0], budget) / under)
    if kind == "power":
        return _exact_power(_exact(args[0], budget), _exact(args[1], budget))
    if kind == "apply" and node.value == "base":
        return Fraction(int(str(args[0].value), int(args[1].value)))  # type: ignore[call-overload]
    if kind == "apply" and node.value == "mod":
        modulus = _exact(args[1], budget)
        if modulus == 0:
            raise NoValue("modulo zero")
        return _exact(args[0], budget) % modulus
    if kind == "function":
        return _exact_function(str(node.value), [_exact(argument, budget) for argument in args])
    raise OutOfReach


def _short(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise OutOfReach
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        root = _exact_root(base, exponent.denominator)
        if root is None:
            raise OutOfReach
        base, exponent = root, Fraction(exponent.numerator)
    if base == 0:
        if exponent <= 0:
            raise NoValue("zero to the power zero or below")
        return base
    bits = base.numerator.bit_length() + base.denominator.bit_length()
    if abs(exponent) * bits > MAX_BITS and abs(base) != 1:
        raise OutOfReach
    return base ** (int(exponent) if abs(base) != 1 else int(exponent % 2))


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    if not 1 <= degree <= 64 or (value < 0 and degree % 2 == 0):
        return None
    over, under = _integer_root(abs(value.numerator), degree), _integer_root(value.denominator, degree)
    if over is None or under is None:
        return None
    return Fraction(-over if value < 0 else over, under)


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        root = low
    return root if root**degree == value else None


def _exact_function(name: str, values: list[Fraction]) -> Fraction:
    if name == "abs":
        return abs(values[0])
    if name in ("floor", "ceil"):
        return Fraction(math.floor(values[0]) if name == "floor" else math.ceil(values[0]))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in ("sqrt", "root"):
        degree = values[1] if name == "root" else Fraction(2)
        if degree.denominator == 1:
            root = _exact_root(values[0], int(degree)) if degree > 0 else None
            if root is not None:
                return root
        raise OutOfReach
    whole = [int(value) for value in values if value.denominator == 1]
    if len(whole) < len(values):
        raise OutOfReach
    if name in ("gcd", "lcm"):
        return Fraction(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))
    if name == "factorial" and 0 <= whole[0] <= 3000:
        return _short(Fraction(math.factorial(whole[0])))
    if name == "double_factorial" and 0 <= whole[0] <= 3000:
        return _short(Fraction(math.prod(range(whole[0], 0, -2))))
    if name == "binomial" and 0 <= whole[1] and 0 <= whole[0] and (min(whole[1], whole[0] - whole[1]) <= 3000 and whole[0] <= 10**9):
        return _short(Fraction(math.comb(*whole)))
    raise OutOfReach
