"""The verifier `code`: runs a response's program against unit tests in a sandbox.

Tests and judgement stay outside the process that runs the program: what it prints, exits with, patches or returns cannot forge a verdict.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, get_args

from sandbox.errors import SandboxError
from sandbox.protocol import Sandbox
from sandbox.types import Answers, Entry, Examination, Execution, Limits, Program
from verifiers.code_extraction import continues, extract_code
from verifiers.code_reference import Asserts, Calls, Check, Pytest, Stdio, Tests, imports_of, names_to_define, read_tests, short
from verifiers.errors import GoldError, VerifierError
from verifiers.gold import no_answer
from verifiers.plain_calls import PlainCall, plain_calls, read_answer, report_bytes
from verifiers.registry import SANDBOXES
from verifiers.stdio_comparison import same_output
from verifiers.types import Problem, Response, Verdict

Reward = Literal["all", "share"]
HARNESS = ("values", "remote", "examiner", "solution")
MAX_CODE_CHARACTERS = 8_000_000


@dataclass(slots=True)
class Tally:
    """How a program did: which tests passed, and what else is known."""

    total: int
    passed: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    compile_error: bool = False
    timeout: bool = False
    memory: bool = False

    def verdict(self, code: str, reward: Reward) -> Verdict:
        """Turn the tally into a verdict."""
        num_passed = len(self.passed)
        share = num_passed / self.total if self.total else 0.0
        score = share if reward == "share" else float(share == 1.0)
        outcome = (
            "correct" if share == 1.0 else "partial" if reward == "share" and num_passed else "timeout" if self.timeout else "incorrect"
        )
        parts = {
            "passed": float(num_passed),
            "total": float(self.total),
            "compile_error": float(self.compile_error),
            "timeout": float(self.timeout),
            "memory": float(self.memory),
        }
        counted = "" if outcome == "correct" else f"{num_passed} of {self.total} tests passed"
        return Verdict(score, outcome, parts, extracted=code, explanation="; ".join([counted, *self.failures[:1]]) if counted else "")


@dataclass(frozen=True, slots=True)
class Code:
    """Scores 1 where the response's program passes all unit tests, run in a sandbox, else 0; or the share passed (`reward: share`).

    The program is the last fenced block that can be one (docs/code-verifier.md), or the whole response. `reference["tests"]` holds the
    tests, in one of the formats `asserts`, `check`, `calls`, `stdio`, `pytest`.

    Args:
        reward: `all` or `share`.
        test_seconds: for one test, and for executing the program before the first.
        total_seconds: for all tests of one program.
        memory_mib: for the program.
        tolerance: relative and absolute, between floats (`calls`) and numbers with a point (`stdio`); tests may bring their own.
        sandbox: `docker`, `local` or a plug-in of your own, with `sandbox_options`.
    """

    reward: Reward = "all"
    test_seconds: float = 5.0
    total_seconds: float = 30.0
    memory_mib: int = 512
    tolerance: float = 1e-5
    sandbox: str = "docker"
    sandbox_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reward not in get_args(Reward):
            raise ValueError(f"reward={self.reward!r} is none of {', '.join(get_args(Reward))}")
        for name in ("test_seconds", "total_seconds", "memory_mib"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
                raise ValueError(f"{name}={value!r} is not a number above 0")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance={self.tolerance!r} is not a number of at least 0 and below 1")
        sandbox = self._sandbox()  # A misspelt option is told at once.
        try:
            sandbox.prepare()  # Now, and not while a deadline runs.
        except SandboxError:
            pass  # Programs are what fails then, with the reason and the remedy; the engine may be back by that time.

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        tests = read_tests(problem)
        if not responses:
            return []
        # Once for the group: what its programs must define, and their tests as plain calls where they are.
        names = names_to_define(tests)
        calls = plain_calls(tests, self._tolerance(tests)) if isinstance(tests, Asserts | Calls | Check) else None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._judge(problem, tests, names, calls, response)) for response in responses]
        results = [task.result() for task in tasks]
        for result in results:
            if isinstance(result, VerifierError):
                raise result
        return results

    async def _judge(
        self, problem: Problem, tests: Tests, names: Collection[str], calls: Sequence[PlainCall] | None, response: Response
    ) -> Verdict | VerifierError:
        # An error is returned, not raised: in a task group it would come out wrapped, and cancel the others.
        code = extract_code(response.text, names)
        if code is None or not code.strip():
            return no_answer(response, "a program")
        if len(code) > MAX_CODE_CHARACTERS:
            return Verdict(0.0, "unparseable", explanation=f"a program of {len(code)} characters")
        try:
            if isinstance(tests, Stdio):
                tally = await self._run_cases(tests, code)
            elif calls is not None:
                tally = await self._ask(tests, calls, code)
            else:
                tally = await self._examine(problem, tests, code)
        except SandboxError as error:
            return VerifierError(f"problem {problem.id!r}: {error}")
        except VerifierError as error:
            return error
        return tally.verdict(code, self.reward)

    async def _run_cases(self, tests: Stdio, code: str) -> Tally:
        """Run the program once for each case; the expected output never enters the sandbox."""
        tally, seconds_left = Tally(len(tests.cases)), self.total_seconds
        for number, (stdin, expected) in enumerate(tests.cases):
            limits = Limits(
                wall_seconds=min(self.test_seconds, max(0.05, seconds_left)), memory_mib=self.memory_mib, output_kib=_output_kib(expected)
            )
            execution = await self._sandbox().run(Program(code, stdin, limits=limits))
            seconds_left -= execution.wall_seconds
            if execution.status == "ok" and same_output(execution.stdout, expected, self._tolerance(tests)):
                tally.passed.add(number)
            else:
                tally.timeout |= execution.status == "timeout"
                tally.memory |= execution.status == "memory"
                tally.compile_error |= _is_compile_error(execution.stderr)
                tally.failures.append(f"test {number + 1}: {_how_it_ended(execution.status, execution.stderr)}")
                if self.reward == "all" or tally.compile_error:
                    break
            if seconds_left <= 0 and number + 1 < len(tests.cases):
                tally.timeout = True
                tally.failures.append(f"no time left for test {number + 2} of {len(tests.cases)} (total_seconds={self.total_seconds:g})")
                break
        return tally

    async def _ask(self, tests: Asserts | Calls | Check, calls: Sequence[PlainCall], code: str) -> Tally:
        """Have all calls made and compare the results here; after one that took the program down, go on behind it where shares count."""
        tally, first = Tally(len(calls)), 0
        # A check is one test, whatever it consists of; executing the program has a time of its own.
        seconds_left = min(self.total_seconds, 2 * self.test_seconds) if isinstance(tests, Check) else self.total_seconds
        while True:
            argument = json.dumps({**_solution(tests, code), "calls": [call.encoded() for call in calls[first:]]})
            answers = await self._sandbox().ask(
                Entry("rlvr_solution:answer", argument, limits=Limits(wall_seconds=max(0.1, seconds_left), memory_mib=self.memory_mib)),
                quiet_seconds=self.test_seconds,
                report_bytes=report_bytes(calls),
            )
            seconds_left -= answers.execution.wall_seconds
            num_answered = _compare(answers, calls, first, tally)
            if isinstance(tests, Check):
                tally.total, tally.passed = 1, {0} if len(tally.passed) == len(calls) else set()
                return tally
            if num_answered is None or self.reward == "all" or seconds_left <= 0 or first + num_answered + 1 >= len(calls):
                return tally
            first += num_answered + 1

    def _tolerance(self, tests: Asserts | Calls | Check | Stdio) -> float:
        return self.tolerance if isinstance(tests, Asserts | Check) else tests.tolerance or self.tolerance

    async def _examine(self, problem: Problem, tests: Asserts | Check | Pytest, code: str) -> Tally:
        """Run all tests in one examination; after a test that took the program down, go on behind it where shares count."""
        tally, skip, seconds_left = Tally(_count(tests)), set(), self.total_seconds
        while True:
            examination = await self._sandbox().examine(
                Entry("rlvr_solution:serve", json.dumps(_solution(tests, code)), limits=Limits(memory_mib=self.memory_mib)),
                Entry(
                    "rlvr_examiner:main",
                    json.dumps(self._examiner(tests, skip)),
                    files=dict(tests.files) if isinstance(tests, Pytest) else {},
                    limits=Limits(wall_seconds=max(0.1, seconds_left), memory_mib=self.memory_mib, num_processes=16),
                ),
            )
            seconds_left -= examination.examiner.wall_seconds
            stopped_at = _read_report(problem, examination, tally)
            if stopped_at is None or self.reward == "all" or isinstance(tests, Check | Pytest) or seconds_left <= 0:
                return tally
            skip |= tally.passed | set(range(stopped_at + 1))

    def _examiner(self, tests: Asserts | Check | Pytest, skip: set[int]) -> dict[str, Any]:
        given: dict[str, Any] = {"seconds": self.test_seconds, "skip": sorted(skip), "entry_point": ""}
        if isinstance(tests, Asserts):
            return {**given, "kind": "asserts", "asserts": tests.asserts, "setup": tests.setup, "entry_point": tests.entry_point}
        if isinstance(tests, Check):
            return {**given, "kind": "check", "code": tests.code, "entry_point": tests.entry_point, "prompt": tests.prompt}
        names = [name for name in tests.files if name.rpartition("/")[2].startswith("test_") or name.endswith("_test.py")]
        return {**given, "kind": "pytest", "module": tests.module, "files": names or list(tests.files), "stop": self.reward == "all"}

    def _sandbox(self) -> Sandbox:
        return shared_sandbox(self.sandbox, self.sandbox_options)


_shared: dict[str, Sandbox] = {}
_sharing = threading.Lock()


def shared_sandbox(name: str, options: Mapping[str, Any]) -> Sandbox:
    """Return this process's sandbox of that name with those options, made on first use; it ends with the process."""
    key = json.dumps([name, dict(options)], sort_keys=True, default=str)
    with _sharing:
        if key not in _shared:
            _shared[key] = SANDBOXES.get(name)(modules=harness_modules(), **options)
        return _shared[key]


def harness_modules() -> dict[str, str]:
    """The source texts a sandbox needs to judge by tests, by module name."""
    folder = resources.files("verifiers.harness")
    return {f"rlvr_{name}": (folder / f"{name}.py").read_text("utf-8") for name in HARNESS}


def _solution(tests: Asserts | Calls | Check | Pytest, code: str) -> dict[str, Any]:
    """What the program's process is given: source texts, and no tests."""
    prompt = getattr(tests, "prompt", "")
    if prompt and continues(code):
        sources = [["solution.py", prompt + ("" if prompt.endswith("\n") else "\n") + code.lstrip("\n"), []]]
    else:
        # What the prompt imports and the helpers it defines; but the function asked for must come from the response.
        sources = [["prompt.py", prompt, [tests.entry_point]]] if prompt else []
        sources.append(["solution.py", code, []])
    imports = tests.code if isinstance(tests, Check) else tests.setup if isinstance(tests, Asserts) else ""
    return {"sources": sources, "imports": imports_of(imports)}


def _compare(answers: Answers, calls: Sequence[PlainCall], first: int, tally: Tally) -> int | None:
    """Enter the results into the tally; returns how many calls were answered where the program was lost among them, else None."""
    lines = answers.report.splitlines()
    if not lines or '"ready"' not in lines[0]:
        stage, error = _not_ready(lines, answers.execution)
        tally.compile_error |= stage == "compile"
        tally.timeout |= answers.execution.status == "timeout"
        tally.memory |= answers.execution.status == "memory" or "MemoryError" in error
        tally.failures.append(f"the program does not run: {error}")
        return None
    for index, (line, call) in enumerate(zip(lines[1:], calls[first:], strict=False)):
        try:
            result, error = read_answer(line)
        except ValueError as unreadable:
            result, error = None, str(unreadable)
        if error is None and call.accepts(result):
            tally.passed.add(first + index)
        else:
            tally.memory |= (error or "").startswith("MemoryError")
            tally.failures.append(f"test {first + index + 1}: {error or f'returned {short(result)}'}: {call.source}")
    num_answered = len(lines) - 1
    if num_answered >= len(calls) - first:
        return None
    status = answers.execution.status
    tally.timeout |= status == "timeout"
    tally.memory |= status == "memory"
    tally.failures.append(f"test {first + num_answered + 1}: {_how_it_ended(status, answers.execution.stderr, 'the program ended')}")
    return num_answered


def _not_ready(lines: list[str], execution: Execution) -> tuple[str, str]:
    try:
        fact = json.loads(lines[0])
        return str(fact["stage"]), ": ".join(map(str, fact["error"]))[:300]
    except (IndexError, KeyError, TypeError, ValueError):
        return "lost", _how_it_ended(execution.status, execution.stderr, "it ended while it was executed")


def _read_report(problem: Problem, examination: Examination, tally: Tally) -> int | None:
    """Enter a report into the tally; returns the test at which the program was lost, None where all were run.

    Raises: GoldError: the tests themselves do not work. VerifierError: the examiner failed.
    """
    stopped_at, done = None, False
    for line in examination.report.splitlines():
        try:
            fact = json.loads(line)
        except ValueError:
            break  # The last line of an examiner that was killed while it wrote.
        event = fact.get("event")
        if event == "bad tests":
            raise GoldError(f"problem {problem.id!r}: the tests do not work: {fact['error']}")
        if event == "collected":
            tally.total = fact["count"]
        elif event == "not loaded":
            tally.compile_error |= fact["stage"] == "compile"
            tally.timeout |= fact["stage"] == "timeout"
            tally.memory |= examination.examined.status == "memory" or "MemoryError" in fact["error"]
            tally.failures.append(f"the program does not run: {fact['error']}")
            return None
        elif event == "done":
            done = True
        elif fact["result"] == "passed":
            tally.passed.add(fact["test"])
        else:
            tally.timeout |= fact["result"] == "timeout"
            tally.memory |= examination.examined.status == "memory" or fact["message"].startswith("MemoryError")
            tally.failures.append(f"test {fact['test'] + 1}: {fact['message']}")
            stopped_at = fact["test"] if fact["result"] in ("timeout", "lost") else None
    if done:
        return stopped_at
    # Without its last line a report does not tell of all tests.
    examiner = examination.examiner
    if examiner.status == "timeout":
        tally.timeout = True
        tally.failures.append("the time for all tests is over")
    elif "memory" in (examiner.status, examination.examined.status):
        tally.memory = True
        tally.failures.append("out of memory")
    elif examination.examined.status == "killed" and examiner.status == "killed":
        tally.failures.append(f"the program took its sandbox down: {examiner.stderr}")
    else:
        raise VerifierError(f"problem {problem.id!r}: the examiner ended with {examiner.status}: {examiner.stderr.strip()[-300:]}")
    tally.total = max(tally.total, len(tally.passed) + 1)
    return None


def _count(tests: Asserts | Check | Pytest) -> int:
    return len(tests.asserts) if isinstance(tests, Asserts) else 1


def _output_kib(expected: str) -> int:
    return 1024 + 4 * (len(expected) >> 10)


def _is_compile_error(stderr: str) -> bool:
    return any(stderr.rstrip().rpartition("\n")[2].startswith(kind) for kind in ("SyntaxError", "IndentationError", "TabError"))


def _how_it_ended(status: str, stderr: str, ok: str = "wrong output") -> str:
    if status == "ok":
        return ok
    if status == "error":
        return stderr.strip().rpartition("\n")[2][:300] or "ended with an error"
    return {"timeout": "out of time", "memory": "out of memory", "output": "too much output", "killed": "killed by a signal"}[status]
