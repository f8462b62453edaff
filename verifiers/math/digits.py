"""What any expression equals, to many digits, at a given point; bounded in steps and in the size of the numbers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from verifiers.math.clock import check_time
from verifiers.math.exact import NoValue, OutOfReach, exact
from verifiers.math.literals import decimal_value
from verifiers.math.nodes import Node, substitute

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
    check_time()
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
