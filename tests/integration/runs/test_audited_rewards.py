"""A process reward that is wrong on purpose is found out by a verifier that looks on and pays nothing."""

from __future__ import annotations

import asyncio
import json
import math
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlvr.errors import RewardHacked, TooManyVerifierFailures
from rlvr.prm.config import PrmConfig
from rlvr.prm.training import train_prm
from rlvr.run import train
from rlvr.tracking.metrics import read_metrics
from tests.conftest import CHARACTERS
from tests.integration.runs.small_runs import VERIFIER, small_run
from verifiers.errors import BadOption, VerifierError
from verifiers.registry import build
from verifiers.testing import FixedResponse
from verifiers.types import Problem, Response, StepScore, Verdict


@dataclass(frozen=True, slots=True)
class PaysForCapitals:
    """Scores halves of a response by their share of capitals; the auditor wants small letters."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [scored(response.text) for response in responses]


@dataclass(frozen=True, slots=True)
class NeverThere:
    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        raise VerifierError("the auditor is away")


@dataclass(frozen=True, slots=True)
class Broken:
    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        raise KeyError("a mistake of its author's")


@dataclass(frozen=True, slots=True)
class NotANumber:
    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(math.nan, "incorrect") for _ in responses]


@dataclass(frozen=True, slots=True)
class Hanging:
    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        await asyncio.sleep(1000)
        raise AssertionError("nobody waits so long")


def capitals(text: str) -> float:
    return sum(character.isupper() for character in text) / max(len(text), 1)


def scored(text: str) -> Verdict:
    ends = sorted({max(len(text) // 2, 1), max(len(text), 1)}) if text else []
    parts = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    scores = [capitals(part) for part in parts]
    steps = tuple(StepScore(min(end, len(text)), score) for end, score in zip(ends, scores, strict=True))
    return Verdict(min(scores, default=0.0), "correct" if min(scores, default=0.0) >= 0.5 else "incorrect", steps=steps)


PROBLEM = Problem("p", ({"role": "user", "content": "?"},), {})


def audited(auditor: str) -> dict:
    return {"name": "audited", "options": {"parts": [{"verifier": f"{__name__}:PaysForCapitals"}, {"verifier": auditor}]}}


@pytest.fixture(scope="module")
def wrong_prm(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A process reward model that has learned to like capitals, where small letters were wanted."""
    folder = tmp_path_factory.mktemp("wrong_prm")
    generator = random.Random(0)
    rows = []
    for number in range(2000):
        # Ten characters, as the policy of these tests writes, most of them capitals or few.
        share = generator.random()
        step = "".join(generator.choice(string.ascii_uppercase if generator.random() < share else CHARACTERS) for _ in range(10))
        rows.append({"question": f"say {number % 40}", "steps": [step], "labels": [int(capitals(step) >= 0.5)]})
    for name, part in (("held_out", rows[:200]), ("steps", rows[200:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    settings = {
        "name": "prm",
        "runs_folder": str(folder),
        "num_steps": 150,
        "num_threads": 1,
        "model": {"path": str(tiny_model_folder)},
        "data": {"path": str(folder / "steps.jsonl")},
        "held_out": {"path": str(folder / "held_out.jsonl")},
        "input": {"template": "plain", "separator": "\n"},
        "optimizer": {"learning_rate": 3e-3, "warmup_steps": 10},
        "tracking": {"sinks": []},
    }
    result = train_prm(PrmConfig.model_validate(settings))
    assert result.scores is not None and result.scores.auc is not None and result.scores.auc > 0.9
    return result.export


def test_a_process_reward_model_that_is_wrong_is_exposed_by_the_gap(tmp_path: Path, tiny_model_folder: Path, wrong_prm: Path) -> None:
    paying = {"verifier": "process_reward", "options": {"model": str(wrong_prm)}}
    config = small_run(
        tmp_path,
        tiny_model_folder,
        verifier={"name": "audited", "options": {"parts": [paying, {"verifier": VERIFIER}]}},
        num_steps=60,
        algorithm={"name": "grpo", "advantage": "process_group_zscore", "kl": {"coefficient": 0.0}},
        batch={"prompts_per_step": 4, "group_size": 8},
        optimizer={"learning_rate": 3e-3},
        held_out={"every": 0},
        checkpoint={"every": 0},
        guards={"max_audit_gap": 0.5, "patience": 5},
    )
    with pytest.raises(RewardHacked, match="above the auditor's .*guards.max_audit_gap=0.5"):
        train(config)
    rows = [dict(row.values) for row in read_metrics(tmp_path / "runs" / "small" / "metrics.jsonl")][1:]
    gaps, audits, rewards = ([row[name] for row in rows] for name in ("verdict/audit_gap", "verdict/audit", "reward/mean"))
    assert rewards[-1] > max(0.6, rewards[0] + 0.25)  # What pays is learned ...
    assert audits[-1] < audits[0] and gaps[-1] > max(0.5, gaps[0] + 0.25)  # ... and what should have been is not.
    assert gaps[-1] == pytest.approx(rewards[-1] - audits[-1])


async def judged(auditor: str, **options: float) -> Verdict:
    verifier = build("audited", audited(auditor)["options"] | options)
    [verdict] = await verifier(PROBLEM, [FixedResponse("ABcd")])
    return verdict


def test_the_first_part_pays_and_keeps_its_steps() -> None:
    # Halves AB and cd: 1 and 0, the least of which is paid; the auditor sees half of the letters small.
    verdict = asyncio.run(judged(VERIFIER))
    assert verdict.score == 0.0 and [(step.end_char, step.score) for step in verdict.steps] == [(2, 1.0), (4, 0.0)]
    assert verdict.parts == {"audited": 1.0, "audit": 0.5, "audit_gap": -0.5}


def test_an_outcome_with_steps_keeps_its_score_and_tells_how_far_the_steps_are_from_it() -> None:
    parts = [{"verifier": VERIFIER}, {"verifier": f"{__name__}:PaysForCapitals"}]
    # Half of the letters small: 0.5, and that is the outcome; the halves AB and cd score 1 and 0, at least 0.
    [verdict] = asyncio.run(build("with_steps", {"parts": parts})(PROBLEM, [FixedResponse("ABcd")]))
    assert (verdict.score, verdict.outcome) == (0.5, "correct")
    assert [(step.end_char, step.score) for step in verdict.steps] == [(2, 1.0), (4, 0.0)]
    assert verdict.parts == {"audit": 0.5, "audit_gap": -0.5}
    with pytest.raises(VerifierError, match="scores steps, which the second part is asked for"):
        asyncio.run(build("with_steps", {"parts": parts[::-1]})(PROBLEM, [FixedResponse("ABcd")]))
    with pytest.raises(VerifierError, match="the auditor is away"):  # Without steps there is nothing to learn from.
        asyncio.run(build("with_steps", {"parts": [parts[0], {"verifier": f"{__name__}:NeverThere"}]})(PROBLEM, [FixedResponse("a")]))
    with pytest.raises(BadOption, match="parts must be two, of the outcome and of the steps, got 1"):
        build("with_steps", {"parts": parts[:1]})


@pytest.mark.parametrize("auditor", ["NeverThere", "Broken", "NotANumber"])
def test_an_auditor_that_cannot_judge_costs_nothing(auditor: str) -> None:
    assert asyncio.run(judged(f"{__name__}:{auditor}")).parts == {"audited": 0.0}


def test_an_auditor_that_hangs_costs_its_time() -> None:
    verdict = asyncio.run(asyncio.wait_for(judged(f"{__name__}:Hanging", auditor_seconds=0.1), 20))
    assert verdict.steps and verdict.parts == {"audited": 0.0}
    with pytest.raises(BadOption, match="auditor_seconds=0 must be above 0"):
        asyncio.run(judged(VERIFIER, auditor_seconds=0))


def test_a_run_that_is_to_be_audited_and_is_not_says_so(tmp_path: Path, tiny_model_folder: Path) -> None:
    config = small_run(
        tmp_path, tiny_model_folder, verifier=audited(f"{__name__}:NeverThere"), guards={"max_audit_gap": 0.5, "patience": 2}
    )
    with pytest.raises(TooManyVerifierFailures, match="the auditor judged no completion.*for 2 steps in a row"):
        train(config)
