"""Reads `reference["tests"]`: the formats in which data sets bring unit tests."""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from verifiers.errors import GoldError
from verifiers.types import Problem

MAX_SHOWN = 120
CALLED = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
FORMATS = "asserts, check, calls, stdio, pytest"


@dataclass(frozen=True, slots=True)
class Asserts:
    """Assertions, each a test (MBPP); `setup` runs before them."""

    asserts: tuple[str, ...]
    setup: str
    entry_point: str


@dataclass(frozen=True, slots=True)
class Check:
    """A function `check(candidate)` (HumanEval); `prompt` is what a response may continue."""

    code: str
    entry_point: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Case:
    """One call and what it must return."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    expected: Any


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one function, or of a method of `class Solution` (LeetCode, LiveCodeBench)."""

    entry_point: str
    cases: tuple[Case, ...]
    prompt: str
    tolerance: float | None


@dataclass(frozen=True, slots=True)
class Stdio:
    """Whole programs: what is fed to standard input and what must come out (APPS, CodeContests)."""

    cases: tuple[tuple[str, str], ...]
    tolerance: float | None


@dataclass(frozen=True, slots=True)
class Pytest:
    """Test files that import the response as `module`."""

    files: Mapping[str, str]
    module: str


Tests = Asserts | Check | Calls | Stdio | Pytest


def read_tests(problem: Problem) -> Tests:
    """Return the tests of a problem. A list of texts is short for `asserts`; JSON text is read first.

    Raises: GoldError: there are none, or they are not of a known format; says what is missing.
    """
    reader = _Reader(problem)
    tests = reader.tests
    return {"asserts": _asserts, "check": _check, "calls": _calls, "stdio": _stdio, "pytest": _pytest}[reader.kind](reader, tests)


class _Reader:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        tests = problem.reference.get("tests")
        if isinstance(tests, str):
            try:
                tests = json.loads(tests)
            except (ValueError, RecursionError) as error:
                raise self.fault(f"'tests' is a text that is not JSON: {error}") from error
        if isinstance(tests, Sequence) and not isinstance(tests, str):
            tests = {"type": "asserts", "asserts": tests}
        if not isinstance(tests, Mapping):
            there = ", ".join(map(repr, problem.reference)) or "nothing"
            raise self.fault(f"the reference has no 'tests', only {there}; map them with data.fields.tests or data.fields.reference")
        self.tests = tests
        self.kind = tests.get("type")
        if self.kind not in FORMATS.split(", "):
            raise self.fault(f"tests of the type {self.kind!r}; there are: {FORMATS}")

    def fault(self, what: str) -> GoldError:
        return GoldError(f"problem {self.problem.id!r}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.tests.get(key, default)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.fault(f"tests of the type {self.kind!r} need {key!r} as a text, got {short(value)}")
        return value

    def items(self, key: str) -> Sequence[Any]:
        value = self.tests.get(key)
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise self.fault(f"tests of the type {self.kind!r} need {key!r} as a list that is not empty, got {short(value)}")
        return value

    def tolerance(self) -> float | None:
        value = self.tests.get("tolerance")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1):
            raise self.fault(f"'tolerance' must be a number between 0 and 1, got {short(value)}")
        return value


def _asserts(reader: _Reader, tests: Mapping[str, Any]) -> Asserts:
    asserts = reader.items("asserts")
    if not all(isinstance(each, str) for each in asserts):
        raise reader.fault("'asserts' must be texts")
    setup = tests.get("setup") or ""
    return Asserts(tuple(asserts), setup if isinstance(setup, str) else "\n".join(map(str, setup)), reader.text("entry_point", ""))


def _check(reader: _Reader, tests: Mapping[str, Any]) -> Check:
    return Check(reader.text("code"), reader.text("entry_point"), reader.text("prompt", ""))


def _calls(reader: _Reader, tests: Mapping[str, Any]) -> Calls:
    cases = []
    for case in reader.items("cases"):
        if not isinstance(case, Mapping) or "expected" not in case or not isinstance(case.get("args", []), Sequence):
            raise reader.fault(f"a case needs 'args' (a list) and 'expected', got {short(case)}")
        cases.append(Case(tuple(case.get("args", [])), dict(case.get("kwargs") or {}), case["expected"]))
    return Calls(reader.text("entry_point"), tuple(cases), reader.text("prompt", ""), reader.tolerance())


def _stdio(reader: _Reader, tests: Mapping[str, Any]) -> Stdio:
    cases = []
    for case in reader.items("cases"):
        stdin, stdout = (case.get("stdin", ""), case.get("stdout")) if isinstance(case, Mapping) else (None, None)
        if not isinstance(stdin, str) or not isinstance(stdout, str):
            raise reader.fault(f"a case needs 'stdin' and 'stdout' as texts, got {short(case)}")
        cases.append((stdin, stdout))
    return Stdio(tuple(cases), reader.tolerance())


def _pytest(reader: _Reader, tests: Mapping[str, Any]) -> Pytest:
    files = tests.get("files")
    if not isinstance(files, Mapping) or not files or not all(isinstance(text, str) for text in files.values()):
        raise reader.fault("tests of the type 'pytest' need 'files': texts by file name")
    return Pytest(dict(files), reader.text("module", "solution"))


@lru_cache(maxsize=4096)
def _called(source: str) -> frozenset[str]:
    return frozenset(name for name in CALLED.findall(source) if not hasattr(builtins, name))


def names_to_define(tests: Tests) -> frozenset[str]:
    """The names a program must define for its tests: by these it is told from examples and drafts around it."""
    if isinstance(tests, Stdio):
        return frozenset()
    if isinstance(tests, Pytest):
        listed = re.findall(
            rf"^\s*from\s+{re.escape(tests.module)}\s+import\s+([^\n#(]+|\([^)]*\))", "\n".join(tests.files.values()), re.MULTILINE
        )
        return frozenset(name for each in listed for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", each))
    entry = frozenset([tests.entry_point]) if tests.entry_point and not hasattr(builtins, tests.entry_point) else frozenset()
    called = frozenset().union(*map(_called, tests.asserts)) if isinstance(tests, Asserts) else frozenset()
    return entry | called or frozenset([tests.entry_point] if tests.entry_point else ())


@lru_cache(maxsize=4096)
def imports_of(code: str) -> str:
    """The import statements at the top level of trusted test code.

    HumanEval executes solution and tests in one namespace, so that a solution may use what the tests import.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    return "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))


def short(value: object) -> str:
    """A value as text for a message, cut."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # An integer of too many digits, lists nested without end.
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
