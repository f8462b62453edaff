r"""Sets of real numbers: intervals, inequalities, unions and finite sets, brought to one form in which equal sets are equal.

`x\ge 0` and `[0,\infty)` are the same set, and so are `1\le|z|\le\frac32` and `[-\frac32,-1]\cup[1,\frac32]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verifiers.math.digits import Surroundings, context, evaluate
from verifiers.math.exact import NoValue, OutOfReach
from verifiers.math.nodes import INFINITY, Node

DIGITS = 40
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


class NoSet(Exception):
    """The tree is no set of real numbers that can be worked out here."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval from `low` to `high`, with its ends or without; one number where they are equal. Infinite ends are open."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool


RealSet = tuple[Piece, ...]
"""Disjoint pieces in ascending order, none touching the next."""


def equal_sets(first: RealSet, second: RealSet) -> bool:
    """Return whether two sets have the same pieces; ends are the same where they agree to 25 digits."""
    with context().workdps(DIGITS):
        return len(first) == len(second) and all(
            one.low_closed == two.low_closed
            and one.high_closed == two.high_closed
            and _same(one.low, two.low)
            and _same(one.high, two.high)
            for one, two in zip(first, second, strict=True)
        )


def real_set(node: Node) -> RealSet:
    """Return the set of real numbers a tree describes.

    Raises: NoSet: it describes none, or its ends are no numbers.
    """
    with context().workdps(DIGITS):
        try:
            return _normalise(_pieces(node))
        except (NoValue, OutOfReach) as error:
            raise NoSet from error


def _pieces(node: Node) -> Sequence[Piece]:
    mp = context()
    if node.kind == "reals":
        return [Piece(-mp.inf, False, mp.inf, False)]
    if node.kind == "empty":
        return []
    if node.kind == "group" and node.value == "{}":
        return [Piece(value, True, value, True) for value in (_number(item) for item in node.args)]
    if node.kind == "group" and len(node.args) == 2:
        low, high = _number(node.args[0]), _number(node.args[1])
        if low > high:
            raise NoSet
        brackets = str(node.value)
        if low == high and brackets != "[]":
            raise NoSet  # A pair of equal numbers; nobody writes the empty set so.
        return [Piece(low, brackets[0] == "[" and mp.isfinite(low), high, brackets[1] == "]" and mp.isfinite(high))]
    if node.kind == "union":
        return [*_pieces(node.args[0]), *_pieces(node.args[1])]
    if node.kind == "intersection":
        return _intersect(_normalise(_pieces(node.args[0])), _normalise(_pieces(node.args[1])))
    if node.kind == "difference":
        removed = node.args[1]
        if removed.kind == "group" and removed.value == "{}":
            rest = _pieces(removed)
        else:
            rest = _normalise(_pieces(removed))
        return _intersect(_normalise(_pieces(node.args[0])), _complement(_normalise(rest)))
    if node.kind == "builder":
        return _pieces(node.args[1])
    if node.kind == "list":
        return _joined(node)
    if node.kind == "relation":
        return _solve(node)
    raise NoSet


def _joined(items: Node) -> Sequence[Piece]:
    """Several sets: together, or for inequalities without `or` what they have in common, if anything."""
    sets = [_normalise(_pieces(item)) for item in items.args]
    if items.value != "or" and all(item.kind == "relation" for item in items.args):
        common = sets[0]
        for other in sets[1:]:
            common = _intersect(common, other)
        if common:
            return common
    return [piece for pieces in sets for piece in pieces]


def _number(node: Node) -> Any:
    mp = context()
    if node == INFINITY:
        return mp.inf
    if node.kind == "negate" and node.args[0] == INFINITY:
        return -mp.inf
    if node.kind == "plus_minus":
        raise NoSet
    if node.symbols():
        raise NoSet
    value = evaluate(node, Surroundings({}))
    if isinstance(value, mp.mpc):
        raise NoSet
    return value


def _solve(relation: Node) -> Sequence[Piece]:
    """The numbers for which every link of a chain holds."""
    operators: tuple[str, ...] = relation.value  # type: ignore[assignment]
    if operators[-1] == "in" and len(operators) == 1:
        return _pieces(relation.args[1])
    if operators[-1] == "notin" and len(operators) == 1:
        return _complement(_normalise(_pieces(relation.args[1])))
    mp = context()
    pieces: RealSet = (Piece(-mp.inf, False, mp.inf, False),)
    variables = relation.symbols()
    if not set(operators) <= set(FLIPPED) or (set(operators) == {"="} and len(operators) > 1):
        raise NoSet
    for left, operator, right in zip(relation.args, operators, relation.args[1:], strict=False):
        link = _solve_link(left, operator, right, variables)
        pieces = _intersect(pieces, _normalise(link))
    return pieces


def _solve_link(left: Node, operator: str, right: Node, variables: frozenset[str]) -> Sequence[Piece]:
    if not left.symbols() and left.kind != "apply":
        left, operator, right = right, FLIPPED[operator], left
    if not right.symbols() and _stands_alone(left):
        return _beyond(_number(right), operator)
    if len(variables) != 1:
        raise NoSet
    (variable,) = variables
    if left.kind == "function" and left.value == "abs" and left.args[0].kind == "symbol" and not right.symbols():
        return _absolute(_number(right), operator)
    return _polynomial(left, operator, right, variable)


def _stands_alone(node: Node) -> bool:
    """One unknown quantity: a variable, or an unknown function of anything."""
    return node.kind == "symbol" or (node.kind == "apply" and node.value not in ("base", "mod"))


def _beyond(end: Any, operator: str) -> list[Piece]:
    mp = context()
    if operator == "=":
        return [Piece(end, True, end, True)]
    if operator == "!=":
        return [Piece(-mp.inf, False, end, False), Piece(end, False, mp.inf, False)]
    closed = operator.endswith("=") and mp.isfinite(end)
    return [Piece(-mp.inf, False, end, closed)] if operator[0] == "<" else [Piece(end, closed, mp.inf, False)]


def _absolute(end: Any, operator: str) -> Sequence[Piece]:
    if end < 0:
        raise NoSet
    if operator in ("<", "<="):
        return _intersect(_normalise(_beyond(end, operator)), _normalise(_beyond(-end, FLIPPED[operator])))
    return (
        [*_beyond(end, operator), *_beyond(-end, FLIPPED[operator])]
        if operator != "!="
        else _complement(_normalise([*_beyond(end, "="), *_beyond(-end, "=")]))
    )


def _polynomial(left: Node, operator: str, right: Node, variable: str) -> Sequence[Piece]:
    """Solve where left minus right is a polynomial of degree one or two in the variable."""
    mp = context()
    difference = Node("add", (left, Node("negate", (right,))))

    def at(point: int) -> Any:
        return evaluate(difference, Surroundings({variable: mp.mpf(point)}))

    values = [at(point) for point in (-2, -1, 0, 1, 2, 5)]
    constant = values[2]
    square = (values[3] + values[1]) / 2 - constant
    slope = (values[3] - values[1]) / 2
    size = max(abs(value) for value in values) + 1
    for point, value in zip((-2, 2, 5), (values[0], values[4], values[5]), strict=True):
        if abs(square * point * point + slope * point + constant - value) > size * mp.mpf(10) ** -30:
            raise NoSet
    if abs(square) < size * mp.mpf(10) ** -30:
        if abs(slope) < size * mp.mpf(10) ** -30:
            raise NoSet
        return _beyond(-constant / slope, operator if slope > 0 else FLIPPED[operator])
    if square < 0:
        square, slope, constant, operator = -square, -slope, -constant, FLIPPED[operator]
    inside = slope * slope - 4 * square * constant
    if inside <= 0:
        raise NoSet
    low, high = ((-slope - mp.sqrt(inside)) / (2 * square), (-slope + mp.sqrt(inside)) / (2 * square))
    if operator == "=":
        return [Piece(low, True, low, True), Piece(high, True, high, True)]
    if operator == "!=":
        return _complement(_normalise([Piece(low, True, low, True), Piece(high, True, high, True)]))
    closed = operator.endswith("=")
    if operator[0] == "<":
        return [Piece(low, closed, high, closed)]
    return [Piece(-mp.inf, False, low, closed), Piece(high, closed, mp.inf, False)]


def _same(first: Any, second: Any) -> bool:
    mp = context()
    if mp.isinf(first) or mp.isinf(second):
        return bool(first == second)
    return bool(abs(first - second) <= (abs(first) + abs(second) + mp.mpf(10) ** -10) * mp.mpf(10) ** -25)


def _normalise(pieces: Sequence[Piece]) -> RealSet:
    merged: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.low, not piece.low_closed)):
        if _same(piece.low, piece.high) and not (piece.low_closed and piece.high_closed):
            continue
        last = merged[-1] if merged else None
        touches = last is not None and (
            (piece.low < last.high and not _same(piece.low, last.high))
            or (_same(piece.low, last.high) and (piece.low_closed or last.high_closed))
        )
        if last is None or not touches:
            merged.append(piece)
        elif _same(piece.high, last.high):
            merged[-1] = Piece(last.low, last.low_closed, last.high, last.high_closed or piece.high_closed)
        elif piece.high > last.high:
            merged[-1] = Piece(last.low, last.low_closed, piece.high, piece.high_closed)
    return tuple(merged)


def _intersect(first: RealSet, second: RealSet) -> RealSet:
    pieces = []
    for one in first:
        for two in second:
            low, low_closed = max((one.low, not one.low_closed), (two.low, not two.low_closed))
            high, high_closed = min((one.high, one.high_closed), (two.high, two.high_closed))
            if low < high or (low == high and not low_closed and high_closed):
                pieces.append(Piece(low, not low_closed, high, high_closed))
    return _normalise(pieces)


def _complement(pieces: RealSet) -> RealSet:
    mp = context()
    low, low_closed = -mp.inf, False
    gaps = []
    for piece in pieces:
        gaps.append(Piece(low, low_closed, piece.low, not piece.low_closed and mp.isfinite(piece.low)))
        low, low_closed = piece.high, not piece.high_closed and mp.isfinite(piece.high)
    gaps.append(Piece(low, low_closed, mp.inf, False))
    return _normalise([gap for gap in gaps if gap.low < gap.high or (gap.low == gap.high and gap.low_closed and gap.high_closed)])
