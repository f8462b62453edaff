"""Benchmarks of programs through `rlvr eval`'s own runner and the real sandbox: written solutions score 1, corrupted ones 0."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlvr.config import DataConfig, VerifierConfig
from rlvr.evaluation.answers_file import AnswersFile
from rlvr.evaluation.benchmarks import Benchmark, LoadedBenchmark, Suite, load_benchmark
from rlvr.evaluation.clock import Clock
from rlvr.evaluation.contest_rows import contest_row
from rlvr.evaluation.responders import build_prompt
from rlvr.evaluation.runner import run_task
from rlvr.evaluation.scores import Scores, score
from rlvr.evaluation.suites import find_suite
from rlvr.evaluation.task import Task
from rlvr.judge import Judge
from rlvr.response_lines import WrittenResponse
from rlvr.types import Prompt, Sampling
from sandbox import DockerSandbox
from tests.integration.docker import contest_solutions
from tests.integration.docker.conftest import POOL

pytestmark = pytest.mark.docker

CODE = VerifierConfig(
    name="code", options={"test_seconds": 25.0, "total_seconds": 120.0, "sandbox_options": POOL}, timeout_seconds=600.0, max_attempts=1
)
BEYOND_REACH = {"Quix/levenshtein", "QuixIO/levenshtein", "Quix/knapsack", "QuixIO/knapsack"}
"""One case of each is too much for the correct version as well; see test_code_corpora.py."""


def contests() -> Suite:
    """A suite as a plug-in would bring it: contest problems on standard input, and as functions."""
    files = {"contests": "stdio_contests", "quixbugs_stdio": "stdio_quixbugs", "quixbugs": "quixbugs"}
    benchmarks = [
        Benchmark(name, name, DataConfig(path=name), "see the data", CODE, read=read_with_question, files=(file,), votes=False)
        for name, file in files.items()
    ]
    return Suite("contests", tuple(benchmarks))


def read_with_question(row):
    return contest_row(type(row)(row.number, {"prompt": f"Write {row.values.get('entry_point')}.", **row.values}))


@dataclass(frozen=True)
class WrittenSolutions:
    """Answers each problem with a program that is given, in place of a model."""

    programs: Mapping[str, str]
    max_sequence_tokens: int | None = None

    async def respond(self, prompt: Prompt, sampling: Sampling) -> list[WrittenResponse]:
        return [WrittenResponse(f"Here it is.\n\n```python\n{self.programs[prompt.problem.id]}\n```\n", "stop", 10)]


def programs(data: Path, file: str, field: str) -> dict[str, str]:
    rows = [json.loads(line) for line in (data / "code" / f"{file}.jsonl").read_text("utf-8").splitlines()]
    return {row["id"]: row[field] for row in rows if row.get(field)}


def scored(loaded: LoadedBenchmark, written: Mapping[str, str], leave_out: Sequence[str], path: Path) -> Scores:
    problems = [problem for problem in loaded.problems if problem.id in written and problem.id not in leave_out]
    prompts = [build_prompt(problem, loaded.benchmark.data, None) for problem in problems]
    task = Task(prompts, Sampling(4096, temperature=0.0), Judge.shared(CODE), "written", "code")
    file = AnswersFile(path)
    answers = asyncio.run(
        run_task(task, WrittenSolutions(written), file, cache=None, clock=Clock(), advance=lambda count: None, others="discard")
    )
    result = score(answers, votes=False)
    assert result.metrics["error_share"].value == 0
    wrong = [row["id"] for row in map(json.loads, path.read_text("utf-8").splitlines()) if row["verdict"]["outcome"] != "correct"]
    assert not wrong or len(wrong) == len(problems), wrong
    return result


CASES = [
    # benchmark, file, least number of problems
    ("humaneval", "humaneval_dev", 80),
    ("mbpp", "mbpp_sanitized_dev", 200),
    ("humaneval_plus", "humanevalplus_dev", 80),
    ("mbpp_plus", "mbppplus_dev", 180),
]


@pytest.mark.parametrize(("name", "file", "least"), CASES, ids=[case[0] for case in CASES])
def test_canonical_solutions_score_1_and_corrupted_ones_0(name, file, least, data_dir: Path, pool: DockerSandbox, tmp_path: Path) -> None:
    suite = find_suite(name)
    [benchmark] = suite.benchmarks
    loaded = load_benchmark(suite.name, benchmark, folder=data_dir)
    canonical = programs(data_dir, file, "canonical")
    right = scored(loaded, canonical, [], tmp_path / "right.jsonl")
    assert right.metrics["avg"].value == 1.0 and right.num_problems >= least
    wrong = scored(loaded, {name: corrupted(program) for name, program in canonical.items()}, [], tmp_path / "wrong.jsonl")
    assert wrong.metrics["avg"].value == 0.0 and wrong.num_problems >= least


def corrupted(program: str) -> str:
    """The program with every function it defines at the top answering None."""
    names = [line.removeprefix("def ").partition("(")[0].strip() for line in program.splitlines() if line.startswith("def ")]
    return program + "".join(f"\n\ndef {name}(*arguments, **named):\n    return None\n" for name in names)


@pytest.mark.parametrize("name", ["quixbugs", "quixbugs_stdio"])
def test_correct_programs_score_1_and_buggy_ones_0(name: str, data_dir: Path, pool: DockerSandbox, tmp_path: Path) -> None:
    [benchmark] = [each for each in find_suite(f"{__name__}:contests").benchmarks if each.name == name]
    loaded = load_benchmark("contests", benchmark, folder=data_dir)
    file = benchmark.files[0] + "_dev"
    left_out = sorted(BEYOND_REACH & {problem.id for problem in loaded.problems})
    right = scored(loaded, programs(data_dir, file, "canonical"), left_out, tmp_path / "right.jsonl")
    wrong = scored(loaded, programs(data_dir, file, "buggy"), left_out, tmp_path / "wrong.jsonl")
    assert (right.metrics["avg"].value, wrong.metrics["avg"].value) == (1.0, 0.0)
    assert right.num_problems == wrong.num_problems == 16 - len(left_out)


def test_our_solutions_of_contest_problems_score_1_and_corrupted_ones_0(data_dir: Path, pool: DockerSandbox, tmp_path: Path) -> None:
    """LiveCodeBench and CodeContests bring no solutions; these are ours, and each is corrupted in what it prints."""
    [benchmark] = find_suite("livecodebench").benchmarks
    loaded = load_benchmark("code", benchmark, folder=data_dir)
    right = scored(loaded, contest_solutions.RIGHT, [], tmp_path / "right.jsonl")
    wrong = scored(
        loaded, {name: f"{program}\nprint('x')\n" for name, program in contest_solutions.RIGHT.items()}, [], tmp_path / "w.jsonl"
    )
    assert (right.metrics["avg"].value, wrong.metrics["avg"].value) == (1.0, 0.0)
    assert right.num_problems == wrong.num_problems == len(contest_solutions.RIGHT) >= 5
