"""What an expression equals: exactly, modulo large primes, or to many digits at random points. All three are bounded in time and memory.

Two rational expressions are equal exactly if they agree as functions; agreement modulo a random prime of 61 bits at random points leaves a
chance of error below 1e-15 (Schwartz 1980, doi:10.1145/322217.322225; Zippel 1979), and any size of number costs the same: `7^{1000000}`
and `(x+1)^{5000}` are small there. Everything else is evaluated with mpmath, to 40 digits and, where two values agree, again to 200.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from verifiers.math.nodes import Node
from verifiers.math.parser import decimal_value

MAX_BITS = 40_000
"""Longer exact numbers are compared modulo primes instead."""
MAX_TERMS = 3000
MAX_STEPS = 40_000
PRIMES = (2305843009213693951, 2305843009213693921, 2305843009213693907, 2305843009213693723)
NUM_POINTS = 4
NUM_ATTEMPTS = 14


class NoValue(Exception):
    """The expression has no value here: a zero divisor, a logarithm of zero, the root of a negative number where reals are asked for."""


class OutOfReach(Exception):
    """This way of evaluating does not know the expression, or it would take too long."""


# --- exactly


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


# --- modulo a prime


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
    kind, args, prime = node.kind, node.args, point.prime
    if kind in ("number", "decimal"):
        value = node.value if isinstance(node.value, Fraction) else decimal_value(str(node.value))
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


def substitute(node: Node, values: Mapping[str, int]) -> Node:
    """Return the expression with whole numbers in place of variables."""
    if node.kind == "symbol":
        return Node("number", (), Fraction(values[str(node.value)])) if str(node.value) in values else node
    if not node.args:
        return node
    return Node(node.kind, tuple(substitute(argument, values) for argument in node.args), node.value)


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


# --- to many digits


_contexts = threading.local()


def context() -> Any:
    """Return this thread's own mpmath context: mpmath's global one shares its precision between threads."""
    if not hasattr(_contexts, "mp"):
        from mpmath.ctx_mp import MPContext

        _contexts.mp = MPContext()
    return _contexts.mp


@dataclass(slots=True)
class Surroundings:
    """Where an expression is evaluated: real values of its variables, whether complex values are allowed, what `log` means."""

    values: Mapping[str, Any]
    complex: bool = False
    log_base: int | None = None
    largest: Any = 1
    steps: int = 4000


def evaluate(node: Node, around: Surroundings) -> Any:
    """Return an mpmath number at mpmath's present precision; `around.largest` becomes the largest value on the way.

    Raises: NoValue, OutOfReach.
    """
    mp = context()
    around.steps -= 1
    if around.steps < 0:
        raise OutOfReach
    value = _evaluate(node, around, mp)
    if not mp.isfinite(value):
        raise NoValue("no finite value")
    size = abs(value)
    if size > around.largest:
        if size > mp.mpf(10) ** 3000:
            raise OutOfReach
        around.largest = size
    if not around.complex and isinstance(value, mp.mpc):
        if value.imag != 0:
            raise NoValue("not real")
        value = value.real
    return value


def _evaluate(node: Node, around: Surroundings, mp: Any) -> Any:
    kind, args = node.kind, node.args
    if kind in ("number", "decimal"):
        value = node.value if isinstance(node.value, Fraction) else decimal_value(str(node.value))
        return mp.mpf(value.numerator) / value.denominator
    if kind == "symbol":
        if node.value not in around.values:
            raise OutOfReach
        return around.values[str(node.value)]
    if kind == "constant":
        if node.value == "infinity":
            raise NoValue("infinite")
        if node.value == "i":
            if not around.complex:
                raise NoValue("not real")
            return mp.mpc(0, 1)
        return +mp.pi if node.value == "pi" else +mp.e
    if kind == "add":
        return mp.fsum(evaluate(argument, around) for argument in args)
    if kind == "negate":
        return -evaluate(args[0], around)
    if kind == "multiply":
        return evaluate(args[0], around) * evaluate(args[1], around)
    if kind == "divide" or (kind == "ratio" and len(args) == 2):
        under = evaluate(args[1], around)
        if abs(under) <= around.largest * mp.mpf(10) ** (8 - mp.dps):
            raise NoValue("division by zero")
        return evaluate(args[0], around) / under
    if kind == "power":
        return _power(args[0], args[1], around, mp)
    if kind == "function":
        return _function(str(node.value), args, around, mp)
    if kind == "apply":
        return _apply(node, around, mp)
    if kind == "degree":
        return evaluate(args[0], around) * (mp.pi / 180)
    if kind == "percent":
        return evaluate(args[0], around) / 100
    if kind in ("sum", "product"):
        return _series(node, around, mp)
    if kind == "unit":
        return evaluate(args[0], around)
    raise OutOfReach


def _power(base: Node, exponent: Node, around: Surroundings, mp: Any) -> Any:
    power, value = evaluate(exponent, around), evaluate(base, around)
    if value == 0:
        if mp.re(power) <= 0:
            raise NoValue("zero to the power zero or below")
        return mp.mpf(0)
    if not isinstance(power, mp.mpc) and power == mp.nint(power) and abs(power) < 10**9:
        _bounded(abs(power) * abs(mp.log(abs(value))), mp)
        return value ** int(power)
    if not around.complex and value < 0:
        # An odd root of a negative number is real, as in school.
        fraction = exact(exponent)
        if fraction is None or fraction.denominator % 2 == 0:
            raise NoValue("not real")
        sign = -1 if fraction.numerator % 2 else 1
        return sign * mp.power(-value, power)
    _bounded(abs(power) * abs(mp.log(value)), mp)
    return mp.power(value, power)


def _bounded(log_size: Any, mp: Any) -> None:
    if log_size > 7000:
        raise OutOfReach


REAL_DOMAIN: dict[str, Callable[[Any], bool]] = {
    "ln": lambda x: x > 0,
    "log": lambda x: x > 0,
    "arcsin": lambda x: -1 <= x <= 1,
    "arccos": lambda x: -1 <= x <= 1,
    "arccosh": lambda x: x >= 1,
    "arctanh": lambda x: -1 < x < 1,
}
PLAIN = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin", "arccos": "acos",
    "arctan": "atan",
    "arccot": "acot", "arcsec": "asec", "arccsc": "acsc", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth", "exp": "exp",
    "ln": "log", "abs": "fabs", "floor": "floor", "ceil": "ceil", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "sgn": "sign",
}  # fmt: skip


def _function(name: str, args: tuple[Node, ...], around: Surroundings, mp: Any) -> Any:
    if name == "det":
        return _determinant(args[0], around, mp)
    values = [evaluate(argument, around) for argument in args]
    first = values[0]
    if name in REAL_DOMAIN and not around.complex and not REAL_DOMAIN[name](first):
        raise NoValue("outside the domain")
    if name in ("exp", "sinh", "cosh"):
        _bounded(abs(first), mp)
    if name in PLAIN:
        if name in ("ln", "cot", "csc", "coth") and first == 0:
            raise NoValue("a pole")
        if name in ("sin", "cos", "tan", "cot", "sec", "csc") and abs(first) > mp.mpf(10) ** 15:
            raise OutOfReach
        try:
            return getattr(mp, PLAIN[name])(first)
        except (ValueError, ZeroDivisionError) as error:
            raise NoValue(str(error)) from error
    if name in ("sqrt", "root"):
        return _real_root(first, values[1] if name == "root" else mp.mpf(2), around, mp)
    if name == "log":
        if first == 0:
            raise NoValue("a pole")
        return mp.log(first) if around.log_base is None else mp.log(first) / mp.log(around.log_base)
    if name == "log_base":
        base = values[1]
        if first == 0 or base in (0, 1) or (not around.complex and (first < 0 or base < 0)):
            raise NoValue("outside the domain")
        return mp.log(first) / mp.log(base)
    if name == "cis":
        if not around.complex:
            raise NoValue("not real")
        return mp.expj(first)
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in ("factorial", "binomial", "double_factorial"):
        if any(isinstance(value, mp.mpc) or abs(value) > 2000 for value in values):
            raise OutOfReach
        try:
            return {"factorial": mp.factorial, "binomial": mp.binomial, "double_factorial": mp.fac2}[name](*values)
        except ValueError as error:
            raise NoValue(str(error)) from error
    raise OutOfReach


def _real_root(value: Any, degree: Any, around: Surroundings, mp: Any) -> Any:
    if degree == 0:
        raise NoValue("the zeroth root")
    if value == 0:
        return mp.mpf(0)
    if degree == 2:
        if not around.complex and value < 0:
            if abs(value) < around.largest * mp.mpf(10) ** (6 - mp.dps):
                return mp.mpf(0)  # Zero, but for rounding.
            raise NoValue("not real")
        return mp.sqrt(value)
    if not isinstance(value, mp.mpc) and value < 0:
        if degree == mp.nint(degree) and int(degree) % 2 == 1:
            return -mp.power(-value, 1 / degree)
        if not around.complex:
            raise NoValue("not real")
    return mp.power(value, 1 / degree)


def _determinant(matrix: Node, around: Surroundings, mp: Any) -> Any:
    rows = [[evaluate(cell, around) for cell in row.args] for row in matrix.args]
    if matrix.kind != "matrix" or len(rows) != len(rows[0]) or len(rows) > 12:
        raise OutOfReach
    return mp.det(mp.matrix(rows))


def _apply(node: Node, around: Surroundings, mp: Any) -> Any:
    """An unknown function is one fixed smooth function of its arguments, drawn by its name."""
    if node.value in ("base", "mod"):
        value = exact(node)
        if value is None:
            raise OutOfReach
        return mp.mpf(value.numerator) / value.denominator
    draw = random.Random(f"unknown function {node.value} {len(node.args)}")
    total = mp.mpf(draw.randrange(1, 1000)) / 997
    for argument in node.args:
        value = evaluate(argument, around)
        if isinstance(value, mp.mpc) or abs(value) > mp.mpf(10) ** 12:
            raise OutOfReach
        first, second = draw.randrange(1, 1000), draw.randrange(1, 1000)
        total += mp.sin(value * first / 991) * second / 983 + mp.cos(value * second / 977) / 3 + value * first / 1009
    return total


def _series(node: Node, around: Surroundings, mp: Any) -> Any:
    body, index, lower, upper = node.args
    bounds = [evaluate(lower, around), evaluate(upper, around)]
    if any(isinstance(bound, mp.mpc) or bound != mp.nint(bound) for bound in bounds) or index.kind not in ("symbol", "constant"):
        raise OutOfReach
    first, last = int(bounds[0]), int(bounds[1])
    if last - first > 400:
        raise OutOfReach
    total = mp.mpf(0 if node.kind == "sum" else 1)
    for step in range(first, last + 1):
        value = evaluate(substitute(body, {str(index.value): step}), around)
        total = total + value if node.kind == "sum" else total * value
    return total


# --- approximately

DECIMAL_DIGITS_OF_FLOAT = 10
"""From so many significant digits on a decimal is read as a printed float, which stands for the number it is nearest to."""


def approximate(node: Node, values: Mapping[str, Fraction]) -> Fraction | None:
    """Return the value to 40 digits, None where it is not real or cannot be had."""
    mp = context()
    try:
        value = exact(node) if not values else None
        if value is not None:
            return value
        with mp.workdps(40):
            point = {name: mp.mpf(number.numerator) / number.denominator for name, number in values.items()}
            result = evaluate(node, Surroundings(point))
            over, under = _rational(result)
            return Fraction(int(over), int(under))
    except (NoValue, OutOfReach, OverflowError, ZeroDivisionError):
        return None


def _rational(value: Any) -> tuple[int, int]:
    from mpmath.libmp import to_rational

    return to_rational(value._mpf_)
