"""The process that runs the tests: separate from the solution's, under another user, with a private pipe for its report.

Test code is the data set's and is trusted; what the solution sends is not, and is plain data before any test sees it.
"""

import builtins
import collections
import importlib
import json
import os
import socket
import sys
import time
import types
import typing

import rlvr_remote as remote

MAX_MESSAGE = 300


def main(argument, channel, report):
    """Run `{"kind": …, "seconds": per test, …}` against the solution behind `channel`; write JSON lines to `report`."""
    given = json.loads(argument)
    connection = remote.Connection(socket.socket(fileno=channel))
    examiner = Examiner(given, connection, report)
    try:
        examiner.load()
    except remote.SolutionGone as gone:
        examiner.tell(event="not loaded", stage=gone.kind, error=str(gone))
        return
    if examiner.names is None:
        return
    kinds = {"asserts": examiner.asserts, "check": examiner.check, "pytest": examiner.pytest}
    try:
        kinds[given["kind"]]()
    except remote.SolutionGone as gone:  # Between the tests, while the names they need were looked up.
        examiner.tell(event="not loaded", stage=gone.kind, error=str(gone))
    examiner.tell(event="done")


class BadTests(Exception):
    """The tests themselves do not work."""


class Examiner:
    """Runs tests of one kind and reports each."""

    def __init__(self, given, connection, report):
        self.given = given
        self.connection = connection
        self.report = report
        self.names = None

    def tell(self, **fact):
        data = (json.dumps(fact) + "\n").encode("ascii")
        while data:
            data = data[os.write(self.report, data) :]

    def load(self):
        """Wait until the solution has been executed."""
        self.connection.deadline = time.monotonic() + self.given["seconds"]
        message = self.connection.receive()
        if message.get("event") == "ready" and isinstance(message.get("names"), dict):
            # What a solution claims is checked for its shape, and decides nothing but which names are asked of it.
            claimed = {name: kind for name, kind in message["names"].items() if isinstance(kind, list) and len(kind) == 2}
            self.names = {name: kind for name, kind in claimed.items() if name.isidentifier() and len(name) < 200}
        else:
            error = message.get("error")
            error = ": ".join(map(str, error)) if isinstance(error, list) else error
            self.tell(event="not loaded", stage=str(message.get("stage")), error=short(str(error)))

    def test(self, number, run, source=""):
        """Run one test and report how it ended; False once the solution is gone. `source`: shown for an assertion without a text."""
        self.connection.deadline = time.monotonic() + self.given["seconds"]
        try:
            message = run()
            result = "passed" if message is None else "failed"
        except remote.SolutionGone as gone:
            result, message = gone.kind, str(gone)
        except AssertionError as error:
            result, message = "failed", short(error) or short(source) or "assertion failed"
        except remote.SolutionError as error:
            result, message = "failed", short(error)
        except BaseException as error:
            result, message = "failed", f"{type(error).__name__}: {short(error)}"
        if self.connection.gone is not None:  # A test may have caught it.
            result, message = self.connection.gone.kind, str(self.connection.gone)
        self.tell(test=number, result=result, message=message or "")
        return self.connection.gone is None

    def asserts(self):
        """Each assertion is a test; all share one namespace, as lines of one file do."""
        sources = self.given["asserts"]
        try:
            codes = [compile(source, "test.py", "exec") for source in sources]
            namespace = self.namespace(self.given["setup"], codes)
        except BadTests as error:
            self.tell(event="bad tests", error=str(error))
            return
        except (SyntaxError, ValueError) as error:
            self.tell(event="bad tests", error=f"{type(error).__name__}: {error}")
            return
        for number, code in enumerate(codes):
            if number in self.given["skip"]:
                continue
            if not self.test(number, lambda code=code: exec(code, namespace), sources[number]):
                return

    def check(self):
        """HumanEval's form: a function `check(candidate)`; one test."""
        try:
            code = compile(self.given["code"], "test.py", "exec")
            namespace = self.namespace(self.given["prompt"], [code], forgiving=True)
            if "check" not in code.co_names:
                raise BadTests("they define no function check(candidate)")
        except (BadTests, SyntaxError, ValueError) as error:
            self.tell(event="bad tests", error=f"{type(error).__name__}: {error}")
            return

        def run():
            exec(code, namespace)
            namespace["check"](self.candidate())

        self.test(0, run)

    def pytest(self):
        """Test files, run by pytest; the module under test is a stand-in for the solution."""
        try:
            import pytest
        except ImportError:
            self.tell(event="bad tests", error="the sandbox's image has no pytest")
            return
        module = types.ModuleType(self.given["module"])
        for name in self.names:
            setattr(module, name, self.stand_in(name))
        # A name the solution lacks fails the tests that use it, not the import that all of them begin with.
        module.__getattr__ = self.missing
        sys.modules[self.given["module"]] = module
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        plugin = PytestReport(self)
        options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir=.", "-x" if self.given["stop"] else "-q"]
        self.connection.deadline = time.monotonic() + self.given["seconds"]
        status = pytest.main([*options, *self.given["files"]], plugins=[plugin])
        if plugin.problem or int(status) not in (0, 1):
            if self.connection.gone is not None:
                self.tell(test=plugin.count, result=self.connection.gone.kind, message=str(self.connection.gone))
            elif self.connection.num_errors:  # Test files may call the solution while they are imported.
                self.tell(test=plugin.count, result="failed", message=plugin.problem or "")
            else:
                self.tell(event="bad tests", error=plugin.problem or f"pytest ended with {status}")

    def candidate(self):
        return Candidate(self.connection, self.given["entry_point"])

    def stand_in(self, name):
        """What tests get under a name the solution defines."""
        kind, detail = self.names[name]
        try:
            return self.made(name, kind, detail)
        except Exception as error:  # Of what the solution claims, nothing may bring the examiner down.
            self.connection.lose("lost", f"it claims what no solution has: {short(error)}")

    def made(self, name, kind, detail):
        if kind == "exception":
            return self.connection.exception_class(name, detail)
        if kind == "callable":
            return Candidate(self.connection, name)
        return self.connection.request("value", Candidate(self.connection, name))

    def missing(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Candidate(self.connection, name)

    def namespace(self, setup, codes, forgiving=False):
        """What test code sees: its own set-up, modules it takes for granted, and stand-ins for what the solution defines.

        A built-in is never the solution's, unless it is the entry point and tests have no other name to call: a solution that defines `len`
        or `set` must not decide what its tests mean. `forgiving`: the set-up is a prompt, which need not be a whole program.
        """
        found = {"__name__": "tests", "__builtins__": builtins}
        try:
            exec(compile(setup, "setup.py", "exec"), found)
        except Exception as error:
            if not forgiving:
                raise BadTests(f"their set-up fails: {type(error).__name__}: {short(error)}") from error
        entry = self.given["entry_point"].split(".")[0].replace("()", "")
        if forgiving:
            found.pop(entry, None)
        # Attributes and what the tests define themselves are among the names, which does no harm: it is not looked up, or overwritten.
        missing = {name for code in codes for name in names_in(code) if name not in found and not hasattr(builtins, name)}
        for name in missing:
            # A module the tests use without importing it is the real one: a solution's own `math.isclose` would say what it likes.
            granted = None if name == entry else taken_for_granted(name)
            if granted is not None:
                found[name] = granted
            elif name in self.names:
                found[name] = self.stand_in(name)
            elif name == entry and "." not in self.given["entry_point"]:
                found[name] = Candidate(self.connection, name)  # A method of `class Solution`, or missing: then calling it says so.
        if hasattr(builtins, entry) and not any(isinstance(found.get(name), remote.RemoteObject) for name in missing):
            found[entry] = Candidate(self.connection, entry)
        return found


def names_in(code):
    """The names that code and the functions in it look up or set, attributes included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


class Candidate(remote.RemoteCallable):
    """A function or class of the solution, by its name."""

    def __init__(self, connection, name):
        super().__init__(connection, name)


class PytestReport:
    """Passes pytest's results on."""

    def __init__(self, examiner):
        self.examiner = examiner
        self.count = 0
        self.problem = None
        self.results = {}

    def pytest_collectreport(self, report):
        if report.failed:
            self.problem = short(report.longrepr)

    def pytest_collection_finish(self, session):
        self.examiner.tell(event="collected", count=len(session.items))

    def pytest_runtest_setup(self, item):
        connection = self.examiner.connection
        connection.deadline = time.monotonic() + self.examiner.given["seconds"]
        if connection.gone is not None:
            raise connection.gone

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        gone = self.examiner.connection.gone
        result = gone.kind if gone is not None else "passed" if report.passed or report.skipped else "failed"
        self.examiner.tell(test=self.count, result=result, message="" if report.passed else f"{report.nodeid}: {short(last_line(report))}")
        self.count += 1


def last_line(report):
    lines = [line for line in str(report.longrepr or "").splitlines() if line.startswith("E ")]
    return lines[-1][2:].strip() if lines else "failed"


def taken_for_granted(name):
    """What solutions import and tests then use without importing it themselves: looked up by the name in the tests, never by a claim."""
    if name == "np":
        name = "numpy"
    if name == "numpy" or name in getattr(sys, "stdlib_module_names", ()):
        try:
            return importlib.import_module(name)
        except ImportError:
            return None
    for module in (collections, typing):
        if name in module.__all__:
            return getattr(module, name)
    return None


def short(value):
    """A value as text, cut."""
    try:
        text = value if isinstance(value, str) else str(value) if isinstance(value, BaseException) else repr(value)
    except BaseException:
        text = "(no text)"
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…"
