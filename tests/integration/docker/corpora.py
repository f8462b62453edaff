"""The data sets of code problems as problems with responses: canonical solutions, corrupted ones, real completions."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifiers.types import Problem


@dataclass(frozen=True)
class Sample:
    """A program, the tests it is judged by, and whether it is right."""

    id: str
    tests: Mapping[str, Any]
    response: str
    right: bool

    @property
    def problem(self) -> Problem:
        return Problem(self.id, ({"role": "user", "content": "…"},), {"tests": self.tests})


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "code" / f"{name}.jsonl").read_text("utf-8").splitlines()]


def humaneval_tests(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "check", "code": row["test"], "entry_point": row["entry_point"], "prompt": row["prompt"]}


def humaneval(folder: Path) -> Iterator[Sample]:
    """Canonical solutions, whole and as continuations of the prompt, and bodies that do nothing."""
    for row in rows(folder, "humaneval_dev"):
        tests = humaneval_tests(row)
        yield Sample(row["id"], tests, row["canonical"], True)
        assert row["canonical"].startswith(row["prompt"])
        yield Sample(row["id"] + "/rest", tests, row["canonical"][len(row["prompt"]) :], True)
        yield Sample(row["id"] + "/fenced", tests, f"Here:\n```python\n{row['canonical']}\n```\n", True)
        yield Sample(row["id"] + "/nothing", tests, row["prompt"] + "    return None\n", False)


def mbpp(folder: Path) -> Iterator[Sample]:
    for row in rows(folder, "mbpp_sanitized_dev"):
        tests = {"type": "asserts", "asserts": row["test_list"], "setup": "\n".join(row["test_imports"]), "entry_point": row["entry_point"]}
        yield Sample(row["id"], tests, row["canonical"], True)
        yield Sample(row["id"] + "/nothing", tests, "def nothing():\n    pass\n", False)


def differential(folder: Path, name: str, form: str) -> Iterator[Sample]:
    """EvalPlus: the expected results are the canonical solution's own; as JSON (`calls`), or written into a check (`check`)."""
    for row in rows(folder, name):
        namespace: dict[str, Any] = {}
        # The data set's own solutions, trusted; executed here as those who make such references would.
        exec(compile(row["canonical"], row["id"], "exec"), namespace)
        cases, lines = [], []
        for arguments in [*row["base_input"], *row["plus_input"][:60]]:
            try:
                expected = namespace[row["entry_point"]](*json.loads(json.dumps(arguments)))
                literal = repr(expected)
                as_json = json.loads(json.dumps(sorted(expected) if isinstance(expected, set) else expected))
                if ast.literal_eval(literal) != expected or not _finite(expected):
                    continue
            except Exception:
                continue
            if len(literal) > 20_000:
                continue
            cases.append({"args": arguments, "expected": as_json})
            lines.append(f"    assert same(candidate(*{arguments!r}), {literal})")
        if not cases:
            continue
        if form == "calls":
            tests = {"type": "calls", "entry_point": row["entry_point"], "cases": cases, "prompt": row["prompt"]}
        else:
            same = "def same(a, b):\n    return a == b or (isinstance(b, float) and abs(a - b) < 1e-6)\n"
            tests = {
                "type": "check",
                "code": same + "def check(candidate):\n" + "\n".join(lines),
                "entry_point": row["entry_point"],
                "prompt": row["prompt"],
            }
        yield Sample(row["id"], tests, row["canonical"], True)
        yield Sample(row["id"] + "/nothing", tests, f"def {row['entry_point']}(*arguments):\n    return 'nothing'\n", False)


def _finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def quixbugs(folder: Path) -> Iterator[Sample]:
    for row in rows(folder, "quixbugs_dev"):
        tests = {"type": "calls", "entry_point": row["entry_point"], "cases": row["tests"]}
        yield Sample(row["id"], tests, row["canonical"], True)
        yield Sample(row["id"] + "/buggy", tests, row["buggy"], False)


def stdio_quixbugs(folder: Path) -> Iterator[Sample]:
    for row in rows(folder, "stdio_quixbugs_dev"):
        tests = {"type": "stdio", "cases": row["tests"]}
        yield Sample(row["id"], tests, row["canonical"], True)
        yield Sample(row["id"] + "/buggy", tests, row["buggy"], False)
