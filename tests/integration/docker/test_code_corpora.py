"""Canonical solutions, their corrupted versions and real completions of the data sets, each judged in real containers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from sandbox import DockerSandbox, Limits, Program
from tests.integration.docker import corpora
from tests.integration.docker.conftest import POOL
from tests.integration.docker.corpora import Sample
from verifiers.registry import build
from verifiers.testing import FixedResponse
from verifiers.types import Problem, Verdict

pytestmark = pytest.mark.docker

# Cases that the correct version cannot do either: exponential time, and a table of 150 million entries.
BEYOND_REACH = {"Quix/levenshtein": 3, "QuixIO/levenshtein": 3, "Quix/knapsack": 9, "QuixIO/knapsack": 9}


def misjudged(samples: Iterable[Sample], pool: DockerSandbox) -> tuple[int, list[str]]:
    """How many samples there are, and which were judged otherwise than they are."""
    verifier = build("code", {"test_seconds": 8.0, "total_seconds": 30.0, "sandbox_options": POOL})

    async def judge_all() -> list[tuple[Sample, Verdict]]:
        waiting = asyncio.Semaphore(32)

        async def one(sample: Sample) -> tuple[Sample, Verdict]:
            async with waiting:
                return sample, (await verifier(sample.problem, [FixedResponse(sample.response)]))[0]

        return await asyncio.gather(*map(one, samples))

    judged = asyncio.run(judge_all())
    return len(judged), [f"{sample.id}: {verdict.explanation}" for sample, verdict in judged if (verdict.score == 1.0) != sample.right]


def without_hopeless(samples: Iterator[Sample]) -> Iterator[Sample]:
    for sample in samples:
        hopeless = BEYOND_REACH.get(sample.id.removesuffix("/buggy"))
        if hopeless is not None:
            cases = [case for number, case in enumerate(sample.tests["cases"]) if number != hopeless]
            sample = Sample(sample.id, {**sample.tests, "cases": cases}, sample.response, sample.right)
        yield sample


def test_humaneval(data_dir: Path, pool: DockerSandbox) -> None:
    count, wrong = misjudged(corpora.humaneval(data_dir), pool)
    assert count > 300 and not wrong


def test_mbpp(data_dir: Path, pool: DockerSandbox) -> None:
    count, wrong = misjudged(corpora.mbpp(data_dir), pool)
    assert count > 400 and not wrong


@pytest.mark.parametrize("form", ["calls", "check"])
@pytest.mark.parametrize("name", ["humanevalplus_dev", "mbppplus_dev"])
def test_the_plus_sets(name: str, form: str, data_dir: Path, pool: DockerSandbox) -> None:
    count, wrong = misjudged(corpora.differential(data_dir, name, form), pool)
    # MbppPlus/2 returns a tuple made of a set of texts, whose order no two interpreters agree on.
    wrong = [each for each in wrong if not each.startswith("MbppPlus/2:")]
    assert count > 150 and not wrong


def test_quixbugs_right_and_buggy(data_dir: Path, pool: DockerSandbox) -> None:
    for samples in (corpora.quixbugs(data_dir), corpora.stdio_quixbugs(data_dir)):
        count, wrong = misjudged(without_hopeless(samples), pool)
        assert count == 32 and not wrong


def test_real_completions_are_judged_as_humanevals_own_harness_judges_them(data_dir: Path, pool: DockerSandbox) -> None:
    """The harness: prompt, completion and tests in one module, right where it ends without an error."""
    tasks = {row["id"]: row for row in corpora.rows(data_dir, "humaneval_dev")}
    rows = [row for row in corpora.rows(data_dir, "completions_codegen16b_dev") if row["task"] in tasks]
    verifier = build("code", {"test_seconds": 5.0, "sandbox_options": POOL})

    async def both(row: dict) -> tuple[str, bool, bool]:
        task = tasks[row["task"]]
        whole = await pool.run(Program(f"{task['prompt']}{row['completion']}\n{task['test']}\n", limits=Limits(wall_seconds=5.0)))
        problem = Problem(row["id"], ({"role": "user", "content": task["prompt"]},), {"tests": corpora.humaneval_tests(task)})
        verdict = (await verifier(problem, [FixedResponse(row["completion"])]))[0]
        return row["id"], whole.status == "ok", verdict.score == 1.0

    async def all_rows() -> list[tuple[str, bool, bool]]:
        return await asyncio.gather(*map(both, rows))

    judged = asyncio.run(all_rows())
    assert len(judged) > 300 and 20 < sum(theirs for _, theirs, _ in judged) < len(judged) - 20
    assert [identifier for identifier, theirs, ours in judged if theirs != ours] == []
