"""No program earns a reward it did not earn, whatever the form of its tests; every right one does, whatever its shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import DockerSandbox, Program
from tests.integration.docker.attacks import ATTACKS, LEGAL, TESTS
from tests.integration.docker.conftest import calls
from tests.integration.docker.probes import REMAINS
from verifiers.errors import GoldError
from verifiers.types import Verdict

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("form", TESTS)
def test_no_attack_is_paid(form: str, judge: Callable[..., Verdict], pool: DockerSandbox) -> None:
    started = pool.counters.workers_started
    paid = {}
    for name, text in ATTACKS.items():
        verdict = judge(TESTS[form], text, test_seconds=1.0, total_seconds=4.0)
        if verdict.score != 0.0 or verdict.outcome == "correct":
            paid[name] = verdict
    assert not paid
    assert asyncio.run(pool.run(Program(REMAINS))).stdout == "remains: []\n"
    assert pool.counters.workers_started <= started + 3, "attacks cost containers"


@pytest.mark.parametrize("form", TESTS)
def test_every_right_program_is_paid(form: str, judge: Callable[..., Verdict]) -> None:
    refused = {name: verdict for name, text in LEGAL.items() if (verdict := judge(TESTS[form], text)).score != 1.0}
    assert not refused


def test_partial_credit_is_the_share_of_tests_passed_even_behind_a_loop(judge: Callable[..., Verdict]) -> None:
    text = "def f(x):\n    while x == 2:\n        pass\n    return x"
    tests = calls("f", ([1], 1), ([2], 2), ([3], 3), ([4], 0))
    verdict = judge(tests, text, reward="share", test_seconds=0.5)
    assert (verdict.score, verdict.outcome) == (0.5, "partial")
    assert (verdict.parts["passed"], verdict.parts["total"], verdict.parts["timeout"]) == (2, 4, 1)
    assert judge(tests, text, test_seconds=0.5).outcome == "timeout"


def test_parts_tell_a_syntax_error_from_a_loop_and_from_lack_of_memory(judge: Callable[..., Verdict]) -> None:
    tests = calls("f", ([1], 1))
    kinds = {
        "compile_error": "def f(x:\n    return x",
        "timeout": "def f(x):\n    while True: pass",
        "memory": "def f(x):\n    return bytearray(2 << 30)",
    }
    for kind, text in kinds.items():
        parts = judge(tests, text, test_seconds=0.5).parts
        assert {name for name in kinds if parts[name]} == {kind}


def test_a_helper_of_the_prompt_is_the_prompts_own(judge: Callable[..., Verdict]) -> None:
    prompt = 'def encode(s):\n    return s[::-1]\n\n\ndef decode(s):\n    """Undo encode."""\n'
    tests = {
        "type": "check",
        "prompt": prompt,
        "entry_point": "decode",
        "code": "def check(candidate):\n    for s in ('abc', 'xy'):\n        assert candidate(encode(s)) == s",
    }
    assert judge(tests, "    return s[::-1]").score == 1.0
    assert judge(tests, "```python\ndef decode(s):\n    return encode(s)\n```").score == 1.0, "and the solution may use it"
    assert judge(tests, "def encode(s):\n    return s\n\ndef decode(s):\n    return s").score == 0.0


def test_classes_and_exceptions_of_a_solution_can_be_tested(judge: Callable[..., Verdict]) -> None:
    tests = {
        "type": "asserts",
        "entry_point": "longest",
        "asserts": [
            "assert longest([Pair(1, 5), Pair(2, 3)]) == 4",
            "assert Pair(1, 2).a == 1",
            "assert [x for x in walk(3)] == [0, 1, 2]",
        ],
    }
    text = (
        "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
        "def longest(pairs):\n    return max(p.b - p.a for p in pairs)\ndef walk(n):\n    yield from range(n)\n"
    )
    assert judge(tests, text).score == 1.0
    assert judge(tests, text.replace("p.b - p.a", "p.b")).score == 0.0


def test_a_function_that_works_in_place_is_seen_to(judge: Callable[..., Verdict]) -> None:
    tests = {"type": "check", "entry_point": "f", "code": "def check(candidate):\n    x = [3, 1]\n    candidate(x)\n    assert x == [1, 3]"}
    assert judge(tests, "def f(x):\n    x.sort()").score == 1.0
    assert judge(tests, "def f(x):\n    return sorted(x)").score == 0.0


def test_a_program_that_raises_while_test_files_are_imported_is_wrong_and_test_files_that_do_are_an_error(
    judge: Callable[..., Verdict],
) -> None:
    tests = {"type": "pytest", "files": {"test_it.py": "from solution import f\nX = f(1)\ndef test():\n    assert X == 2"}}
    assert judge(tests, "def f(x):\n    return x + 1").score == 1.0
    assert judge(tests, "def f(x):\n    raise ValueError").outcome == "incorrect"
    broken = {"type": "pytest", "files": {"test_it.py": "from solution import f\nimport no_such_module\n"}}
    failing = {"type": "asserts", "asserts": ["assert f(1) == 2"], "setup": "1 / 0"}
    for kind in (
        broken,
        failing,
        {"type": "asserts", "asserts": ["assert f(1) =="]},
        {"type": "check", "code": "x = 1", "entry_point": "f"},
    ):
        with pytest.raises(GoldError, match="the tests do not work"):
            judge(kind, "def f(x):\n    return x + 1")


@pytest.mark.parametrize("form", ["plain check", "calls", "examined asserts", "pytest"])
def test_the_dev_attacks_end_as_prescribed(form: str, data_dir: Path, judge: Callable[..., Verdict], pool: DockerSandbox) -> None:
    """The attacks that come with the data: their task is another one, so right answers to it fail here and only the lies count."""
    folder = data_dir / "code" / "attacks_dev"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    cases = [([[1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3], True), ([[1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.05], False), ([[1.1, 2.2, 3.1], 1.0], True)]
    asserts = [f"assert has_close_elements(*{args!r}) == {expected}" for args, expected in cases]
    tests = {
        "calls": calls("has_close_elements", *cases),
        "examined asserts": {"type": "asserts", "asserts": asserts, "entry_point": "has_close_elements"},
        "pytest": {
            "type": "pytest",
            "files": {"test_it.py": "from solution import has_close_elements\ndef test():\n    " + "\n    ".join(asserts)},
        },
        "plain check": {
            "type": "check",
            "entry_point": "has_close_elements",
            "code": "def check(candidate):\n"
            + "\n".join(f"    assert candidate({args[0]!r}, {args[1]!r}) == {expected}" for args, expected in cases),
        },
    }[form]
    wrong = []
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        text = (folder / row["file"]).read_bytes().decode("utf-8", "surrogateescape")
        verdict = judge(tests, text, test_seconds=1.0, total_seconds=4.0)
        expected = row["expected"]["verdict"]
        if (expected == "fail" and verdict.score) or (expected == "pass" and not verdict.score):
            wrong.append((row["id"], expected, verdict))
        if row["category"] == "escape" and form == "calls":
            done = asyncio.run(pool.run(Program(text)))
            if "ESCAPED" in done.stdout + done.stderr:
                wrong.append((row["id"], done.stdout))
    assert not wrong
    assert asyncio.run(pool.run(Program(REMAINS))).stdout == "remains: []\n"
