"""What a rational expression equals modulo a large prime at random whole numbers.

Two rational expressions are equal exactly if they agree as functions; agreement modulo a random prime of 61 bits at random points leaves a
chance of error below 1e-15 (Schwartz 1980, doi:10.1145/322217.322225; Zippel 1979), and any size of number costs the same: `7^{1000000}`
and `(x+1)^{5000}` are small there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from verifiers.math.clock import check_time
from verifiers.math.exact import MAX_STEPS, NoValue, OutOfReach, exact
from verifiers.math.literals import decimal_value
from verifiers.math.nodes import Node, substitute

MAX_TERMS = 3000
PRIMES = (2305843009213693951, 2305843009213693921, 2305843009213693907, 2305843009213693723)
"""The largest primes of 61 bits."""


@dataclass(slots=True)
class Point:
    """Whole numbers for the variables, a prime, and a budget of steps."""

    prime: int
    values: dict[str, int]
    random: random.Random
    unknown: dict[tuple[object, ...], int] = field(default_factory=dict)
    steps: int = MAX_STEPS

    def variable(self, name: str) -> int:
        if name not in self.values:
            self.values[name] = self.random.randrange(20, 400)
        return self.values[name]


def modular(node: Node, point: Point) -> int:
    """Return the value of a rational expression modulo the point's prime.

    Raises: NoValue: a divisor is zero there. OutOfReach: it is not built from `+ - * /`, whole powers, factorials and unknown functions.
    """
    point.steps -= 1
    if point.steps < 0:
        raise OutOfReach
    check_time()
    kind, args, prime = node.kind, node.args, point.prime
    if kind in ("number", "decimal"):
        value = node.value if not isinstance(node.value, str | tuple) else decimal_value(str(node.value))
        return value.numerator % prime * _inverse(value.denominator, prime) % prime
    if kind == "symbol" or (kind == "constant" and node.value in ("pi", "e")):
        # Between rational expressions pi and e act as variables: they satisfy no polynomial equation.
        return point.variable(str(node.value))
    if kind == "add":
        return sum(modular(argument, point) for argument in args) % prime
    if kind == "negate":
        return -modular(args[0], point) % prime
    if kind == "multiply":
        return modular(args[0], point) * modular(args[1], point) % prime
    if kind == "divide" or (kind == "ratio" and len(args) == 2):
        return modular(args[0], point) * _inverse(modular(args[1], point), prime) % prime
    if kind == "power":
        return _modular_power(args[0], args[1], point)
    if kind == "function" and node.value in ("factorial", "binomial"):
        return _modular_combinatorial(str(node.value), args, point)
    if kind == "apply" and node.value not in ("base", "mod"):
        key = (node.value, *(modular(argument, point) for argument in args))
        if key not in point.unknown:
            point.unknown[key] = random.Random(f"{key} {prime} {sorted(point.values.items())}").randrange(1, prime)
        return point.unknown[key]
    if kind in ("sum", "product"):
        return _modular_series(node, point)
    value = exact(node)
    if value is None:
        raise OutOfReach
    return value.numerator % prime * _inverse(value.denominator, prime) % prime


def _inverse(value: int, prime: int) -> int:
    if value % prime == 0:
        raise NoValue("division by zero")
    return pow(value, -1, prime)


def _modular_power(base: Node, exponent: Node, point: Point) -> int:
    power = _integer(exponent, point)
    value = modular(base, point)
    if value == 0 and power <= 0:
        raise NoValue("zero to the power zero or below")
    return pow(value, power, point.prime)


def _integer(node: Node, point: Point) -> int:
    """Return the whole value of an exponent or bound at this point, which must not be reduced modulo the prime; towers are out of reach."""
    value = exact(substitute(node, {name: point.variable(name) for name in node.symbols()}))
    if value is None or value.denominator != 1:
        raise OutOfReach
    return int(value)


def _modular_combinatorial(name: str, args: tuple[Node, ...], point: Point) -> int:
    numbers = [_integer(argument, point) for argument in args]
    if any(value < 0 for value in numbers):
        raise NoValue("a factorial of a negative number")
    upper = numbers[0]
    lower = numbers[1] if name == "binomial" else 0
    if lower > upper:
        return 0
    count = min(lower, upper - lower) if name == "binomial" else upper
    if count > MAX_TERMS * 4:
        raise OutOfReach
    point.steps -= count // 10
    over = under = 1
    for step in range(count):
        over = over * (upper - step) % point.prime
        if name == "binomial":
            under = under * (step + 1) % point.prime
    return over * _inverse(under, point.prime) % point.prime


def _modular_series(node: Node, point: Point) -> int:
    body, index, lower, upper = node.args
    first, last = _integer(lower, point), _integer(upper, point)
    if last - first > MAX_TERMS or index.kind not in ("symbol", "constant"):
        raise OutOfReach
    name = str(index.value)
    total = 0 if node.kind == "sum" else 1
    for step in range(first, last + 1):
        value = modular(substitute(body, {name: step}), point)
        total = (total + value if node.kind == "sum" else total * value) % point.prime
    return total
