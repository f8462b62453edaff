"""Tests that are calls with literal arguments: the results come out of the sandbox as plain data and are compared here.

Expected values then never enter the sandbox, and one process does what otherwise takes two. Assertions such as `assert f(1, [2]) == 3` are
recognised; where one of a problem's assertions is of another form, all of them go to the examiner.
"""

from __future__ import annotations

import ast
import builtins
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from verifiers.code_reference import Asserts, Calls, Check, short
from verifiers.errors import GoldError
from verifiers.harness import comparison, values

SPARE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PlainCall:
    """One call as it travels, and what its result must be."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    accepts: Callable[[Any], bool]
    source: str
    expected_bytes: int = 0

    def encoded(self) -> list[Any]:
        named = {key: values.encode(value, _no_handle) for key, value in self.kwargs.items()}
        return [self.name, [values.encode(value, _no_handle) for value in self.args], named]


class Opaque:
    """What stands for a result that is not plain data: equal to nothing, and true."""

    __slots__ = ()


def plain_calls(tests: Asserts | Calls | Check, tolerance: float) -> Sequence[PlainCall] | None:
    """Return the tests as plain calls, or None where some are more than that."""
    if isinstance(tests, Asserts):
        return None if tests.setup.strip() else _plain_asserts(tests.asserts, tests.entry_point)
    if isinstance(tests, Check):
        return _plain_check(tests.code, tests.entry_point)
    return [
        PlainCall(
            tests.entry_point,
            case.args,
            dict(case.kwargs),
            _within(case.expected, tolerance),
            f"expected {short(case.expected)}",
            len(repr(case.expected)),
        )
        for case in tests.cases
    ]


def report_bytes(calls: Sequence[PlainCall]) -> int:
    """How much a program may answer: room for the right results and for an explanation of wrong ones, but not for filling this process."""
    return SPARE_BYTES + sum(4 * max(call.expected_bytes, len(call.source)) for call in calls)


def read_answer(line: str) -> tuple[Any, str | None]:
    """Return the result a line of a report holds, and the error it tells of instead.

    Raises: ValueError: the line is none that the harness writes; the program wrote it.
    """
    try:
        fact = json.loads(line)
        if "error" in fact:
            return None, ": ".join(map(str, fact["error"]))[:300]
        return values.decode(fact["value"], _held), None
    except (ValueError, TypeError, KeyError, RecursionError, values.ProtocolError) as error:
        raise ValueError(f"unreadable result: {error}") from error


@lru_cache(maxsize=4096)
def _plain_asserts(asserts: tuple[str, ...], entry_point: str) -> Sequence[PlainCall] | None:
    calls = []
    for source in asserts:
        body = _parse(source)
        call = _plain_assert(body[0]) if len(body) == 1 else None
        if call is None:
            return None
        calls.append(call)
    names = {call.name for call in calls}
    # A built-in is called as itself, unless the solution is to be one and the tests call nothing else.
    if any(hasattr(builtins, name) for name in names) and names != {entry_point}:
        return None
    return tuple(calls)


@lru_cache(maxsize=4096)
def _plain_check(code: str, entry_point: str) -> Sequence[PlainCall] | None:
    """Read a `check(candidate)` whose body is plain assertions, as most of HumanEval's are."""
    body = _parse(code)
    checks = [node for node in body if isinstance(node, ast.FunctionDef)]
    others = [node for node in body if not isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom | ast.Assign | ast.Expr)]
    if others or len(checks) != 1 or checks[0].name != "check" or len(checks[0].args.args) != 1:
        return None
    candidate, calls = checks[0].args.args[0].arg, []
    for node in checks[0].body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and node.test.value is True:
            continue  # HumanEval's `assert True, "This prints if …"`.
        call = _plain_assert(node)
        if call is None or call.name != candidate:
            return None
        calls.append(replace(call, name=entry_point))
    return tuple(calls) or None


def _parse(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source.strip()).body
    except (SyntaxError, ValueError, RecursionError):
        return []


def _plain_assert(node: ast.stmt) -> PlainCall | None:
    """Read `assert f(…) == literal`, the other way round, with `is`, bare or with `not`."""
    if not isinstance(node, ast.Assert):
        return None
    test, source = node.test, ast.unparse(node)
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
        sides = [test.left, test.comparators[0]]
        calls = [side for side in sides if isinstance(side, ast.Call) and not _is_literal(side)]
        literals = [side for side in sides if _is_literal(side)]
        if len(calls) != 1 or len(literals) != 1:
            return None
        expected = ast.literal_eval(literals[0])
        if isinstance(test.ops[0], ast.Is):
            if not (expected is None or isinstance(expected, bool)):
                return None
            return _call(calls[0], lambda result: result is expected, source)
        return _call(calls[0], _equal_to(expected), source)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _call(test.operand, lambda result: not _truth(result), source)
    return _call(test, _truth, source)


def _call(node: ast.expr, accepts: Callable[[Any], bool], source: str) -> PlainCall | None:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return None
    if not all(_is_literal(each) for each in node.args) or not all(each.arg and _is_literal(each.value) for each in node.keywords):
        return None
    args = tuple(ast.literal_eval(each) for each in node.args)
    return PlainCall(node.func.id, args, {each.arg: ast.literal_eval(each.value) for each in node.keywords}, accepts, source)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _equal_to(expected: Any) -> Callable[[Any], bool]:
    return _guarded(lambda result: bool(result == expected))


def _within(expected: Any, tolerance: float) -> Callable[[Any], bool]:
    return _guarded(lambda result: comparison.equal(result, expected, tolerance))


def _truth(result: Any) -> bool:
    return _guarded(bool)(result)


def _guarded(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(result: Any) -> bool:
        try:
            return accepts(result)
        except (ArithmeticError, ValueError, TypeError, RecursionError, MemoryError):
            return False  # Such as a signalling NaN, an endless range, nesting without end: not what was expected.

    return check


def _no_handle(value: object, kind: str) -> object:
    raise GoldError(f"the tests do not work: an argument of the type {type(value).__name__} is not plain data")


def _held(handle: Any) -> Any:
    """What stands for an object: an iterator came with its items, anything else stays closed."""
    return Opaque() if handle is None else iter([values.decode(each, _held) for each in handle])
