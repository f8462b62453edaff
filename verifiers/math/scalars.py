"""Whether two expressions have one value, for all values of their variables.

The cascade, cheapest first: written alike; both rational numbers; rational expressions modulo primes at random points; any expression to
many digits at random points. A difference found is proof; agreement is accepted where chance could not explain it.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from verifiers.math.digits import Surroundings, context, evaluate
from verifiers.math.exact import NoValue, OutOfReach, exact
from verifiers.math.modular import PRIMES, Point, modular
from verifiers.math.nodes import INFINITY, Node

DIGITS, CONFIRMING_DIGITS = 40, 200
NUM_POINTS = 4
NUM_ATTEMPTS = 14


class Match(enum.Enum):
    """Equal, different, or not decided by what was tried."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


def same_value(first: Node, second: Node) -> Match:
    """Compare two expressions as functions of their variables."""
    if first == second:
        return _has_value(first)
    if _is_infinite(first) or _is_infinite(second):
        return Match.DIFFERENT
    try:
        one, two = exact(first), exact(second)
    except NoValue:
        return Match.DIFFERENT
    if one is not None and two is not None:
        return Match.EQUAL if one == two else Match.DIFFERENT
    result = _compare_modular(first, second)
    if result is Match.UNKNOWN:
        result = _compare_digits(first, second)
    if result is Match.UNKNOWN and _in_order(first) == _in_order(second):
        return _has_value(first)  # Out of reach, such as a tower of powers, but the same terms and factors.
    return result


def proportional(first: Node, second: Node) -> Match:
    """Compare two expressions up to a constant factor other than zero, as `x-1=0` and `2-2x=0` are compared."""
    result = _proportional_modular(first, second)
    return result if result is not Match.UNKNOWN else _proportional_digits(first, second)


def _is_infinite(node: Node) -> bool:
    while node.kind == "negate":
        node = node.args[0]
    return node == INFINITY


def _in_order(node: Node) -> str:
    """The expression written out with its terms and factors in alphabetical order."""
    args = [_in_order(argument) for argument in _operands(node, node.kind)]
    return f"({_spelled(node).rpartition(':')[0]} {' '.join(sorted(args) if node.kind in ('add', 'multiply') else args)})"


def _operands(node: Node, kind: str) -> list[Node]:
    if kind not in ("add", "multiply"):
        return list(node.args)
    return [inner for argument in node.args for inner in (_operands(argument, kind) if argument.kind == kind else [argument])]


def _has_value(node: Node) -> Match:
    """Of two that were written alike: only `0/0` and its kin do not equal themselves."""
    try:
        exact(node)
    except NoValue:
        return Match.DIFFERENT
    return Match.EQUAL


def _seed(first: Node, second: Node) -> random.Random:
    # The same pair meets the same points everywhere and always.
    return random.Random(" ".join(_spelled(node) for tree in (first, second) for node in tree.walk()))


def _spelled(node: Node) -> str:
    # Numbers in hexadecimal: Python refuses to write thousands of decimal digits.
    value = f"{node.value.numerator:x}/{node.value.denominator:x}" if isinstance(node.value, Fraction) else str(node.value)
    return f"{node.kind}:{value}:{len(node.args)}"


def _points_modular(first: Node, second: Node) -> Iterator[tuple[int, int, int]]:
    """Yield the prime and both values modulo it, at points where both have one; ends early where either is out of reach."""
    draw = _seed(first, second)
    names = sorted(first.symbols() | second.symbols())
    for attempt in range(NUM_ATTEMPTS):
        prime = PRIMES[attempt % len(PRIMES)]
        values = {name: draw.randrange(3, 60) if attempt % 3 else draw.randrange(100, 400) for name in names}
        point = Point(prime, values, draw)
        try:
            yield prime, modular(first, point), modular(second, point)
        except NoValue:
            continue
        except OutOfReach:
            return


def _compare_modular(first: Node, second: Node) -> Match:
    agreed = 0
    for _, one, two in _points_modular(first, second):
        if one != two:
            return Match.DIFFERENT
        agreed += 1
        if agreed == NUM_POINTS:
            return Match.EQUAL
    return Match.UNKNOWN


def _proportional_modular(first: Node, second: Node) -> Match:
    """Constant quotients: at every point one/two must be the same number, which modulo a prime means one modulus throughout."""
    draw = _seed(first, second)
    names = sorted(first.symbols() | second.symbols())
    prime, quotients = PRIMES[0], []
    for _ in range(NUM_ATTEMPTS):
        point = Point(prime, {name: draw.randrange(3, 400) for name in names}, draw)
        try:
            one, two = modular(first, point), modular(second, point)
        except NoValue:
            continue
        except OutOfReach:
            return Match.UNKNOWN
        if (one == 0) != (two == 0):
            return Match.DIFFERENT
        if one == 0:
            continue
        quotients.append(one * pow(two, -1, prime) % prime)
        if quotients[0] != quotients[-1]:
            return Match.DIFFERENT
        if len(quotients) == NUM_POINTS:
            return Match.EQUAL
    return Match.UNKNOWN


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to evaluate: with complex values or real ones only, and with which base of `log`."""

    complex: bool
    log_base: int | None


def _compare_digits(first: Node, second: Node) -> Match:
    results = []
    for reading in _readings(first, second):
        result = _compare_at_points(first, second, reading)
        if result is Match.EQUAL:
            return result
        results.append(result)
    return Match.DIFFERENT if Match.DIFFERENT in results else Match.UNKNOWN


def _readings(first: Node, second: Node) -> list[Reading]:
    nodes = [*first.walk(), *second.walk()]
    imaginary = any(node.kind == "constant" and node.value == "i" for node in nodes)
    imaginary = imaginary or any(node.kind == "function" and node.value == "cis" for node in nodes)
    # `\log` without a base is the natural logarithm to some and has base ten for others.
    bases = [None, 10] if any(node.kind == "function" and node.value == "log" for node in nodes) else [None]
    return [Reading(imaginary, base) for base in bases]


def _compare_at_points(first: Node, second: Node, reading: Reading) -> Match:
    names = sorted(first.symbols() | second.symbols())
    agreed = 0
    rooted = _has_even_root(first) or _has_even_root(second)
    for values in _points(names, _seed(first, second)):
        if rooted and any(over < 0 for over, _ in values.values()):
            continue
        result = _compare_at(first, second, values, reading, DIGITS)
        if result is Match.EQUAL and agreed == 0:
            result = _compare_at(first, second, values, reading, CONFIRMING_DIGITS)
        if result is Match.DIFFERENT:
            return result
        agreed += result is Match.EQUAL
        if agreed == NUM_POINTS or (agreed and not names):
            return Match.EQUAL
    return Match.EQUAL if agreed >= 2 else Match.UNKNOWN


def _has_even_root(node: Node) -> bool:
    r"""Whether variables stand under a root or in a logarithm: taken to be positive there, so that `\sqrt{a^2b}` is `a\sqrt b`."""
    for inner in node.walk():
        if inner.kind == "function" and inner.value in ("sqrt", "root", "ln", "log", "log_base") and inner.symbols():
            return True
        if inner.kind == "power" and inner.args[1].kind in ("divide", "decimal") and inner.args[0].symbols():
            return True
    return False


def _points(names: list[str], draw: random.Random) -> Iterator[Mapping[str, tuple[int, int]]]:
    """Yield points as fractions: between 0 and 1, a little above 1, whole, and below 0, in turn."""
    if not names:
        yield {}
        return
    for attempt in range(NUM_ATTEMPTS):
        if attempt % 4 == 0:
            yield {name: (draw.randrange(50, 950), 1009) for name in names}
        elif attempt % 4 == 1:
            yield {name: (draw.randrange(1100, 5000), 1013) for name in names}
        elif attempt % 4 == 2:
            yield {name: (draw.randrange(2, 30), 1) for name in names}
        else:
            yield {name: (-draw.randrange(100, 3000), 1019) for name in names}


def _compare_at(first: Node, second: Node, values: Mapping[str, tuple[int, int]], reading: Reading, digits: int) -> Match:
    pair = _evaluate_pair(first, second, values, reading, digits)
    if pair is None:
        return Match.UNKNOWN
    one, two, largest = pair
    mp = context()
    with mp.workdps(digits):
        noise = largest * mp.mpf(10) ** (8 - digits)
        gap = abs(one - two)
        if gap > noise + max(abs(one), abs(two)) * mp.mpf(10) ** (12 - digits):
            return Match.DIFFERENT
        # Where cancellation leaves nothing but noise, agreement says nothing.
        return Match.EQUAL if noise < mp.mpf(10) ** -15 * max(abs(one), abs(two), mp.mpf(10) ** -8) else Match.UNKNOWN


def _evaluate_pair(
    first: Node, second: Node, values: Mapping[str, tuple[int, int]], reading: Reading, digits: int
) -> tuple[Any, Any, Any] | None:
    """Return both values and the largest number met on the way, or None where one has no value; with more digits where they cancel."""
    mp = context()
    for working in (digits, digits + 400):
        with mp.workdps(working):
            point = {name: mp.mpf(over) / under for name, (over, under) in values.items()}
            around = Surroundings(point, complex=reading.complex, log_base=reading.log_base)
            try:
                one, two = evaluate(first, around), evaluate(second, around)
            except (NoValue, OutOfReach, OverflowError, ZeroDivisionError, mp.NoConvergence):
                return None
            largest = around.largest
            lost = mp.log10(largest / max(abs(one), abs(two), mp.mpf(10) ** -8))
        if lost < digits - 25:
            return one, two, largest * mp.mpf(10) ** (digits - working)
    return None


def _proportional_digits(first: Node, second: Node) -> Match:
    names = sorted(first.symbols() | second.symbols())
    (reading, *_) = _readings(first, second)
    mp = context()
    quotients: list[Any] = []
    for values in _points(names, _seed(first, second)):
        pair = _evaluate_pair(first, second, values, reading, DIGITS)
        if pair is None:
            continue
        one, two, _ = pair
        with mp.workdps(DIGITS):
            small = mp.mpf(10) ** -25
            if (abs(one) < small) != (abs(two) < small):
                return Match.DIFFERENT
            if abs(one) < small:
                continue
            quotients.append(one / two)
            if abs(quotients[0] - quotients[-1]) > abs(quotients[0]) * mp.mpf(10) ** -20:
                return Match.DIFFERENT
        if len(quotients) == NUM_POINTS:
            return Match.EQUAL
    return Match.UNKNOWN
