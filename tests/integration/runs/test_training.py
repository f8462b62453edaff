"""Whole runs on a tiny model: every algorithm steps, what should move moves, what should stop stops."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlvr.errors import DataError, NoLearningSignal, TooManyVerifierFailures
from rlvr.run import train
from rlvr.tracking.metrics import read_metrics
from rlvr.tracking.rollout_table import RolloutTable
from tests.integration.runs.small_runs import VERIFIER, small_run, verdict, write_problems
from verifiers.errors import VerifierError
from verifiers.types import Problem, Response, Verdict

ALGORITHMS = [
    "grpo",
    "dr_grpo",
    "dapo",
    "rloo",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "gspo",
    "cispo",
    "remax",
    "opo",
    "gpg",
    "sapo",
    "gmpo",
    "vineppo",
    "prime",
]


def metrics_of(run: Path) -> list[dict]:
    return [dict(row.values) for row in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_changes_the_weights_and_reports_finite_numbers(tmp_path, tiny_model_folder, name):
    result = train(small_run(tmp_path, tiny_model_folder, num_steps=2, algorithm={"name": name, "kl": {}}))
    rows = metrics_of(result.folder)[1:]
    assert len(rows) == 2
    assert all(value is not None and math.isfinite(value) for row in rows for value in row.values())
    # At the first and only update of a step old and current policy are one.
    assert all(row["policy/ratio_max"] == 1.0 and row["policy/approx_kl"] == 0.0 for row in rows)
    before = load_file(tiny_model_folder / "model.safetensors")
    after = load_file(result.export / "model.safetensors")
    assert any(not before[tensor].equal(after[tensor]) for tensor in before)


def test_learning_raises_the_reward(tmp_path, tiny_model_folder):
    """Random characters score about 0.3; in 40 steps the model finds lower-case letters. Measured 2026-11-20: 0.35 -> 1.0."""
    changes = {"num_steps": 40, "batch": {"prompts_per_step": 4, "group_size": 8}, "held_out": {"every": 0}, "checkpoint": {"every": 0}}
    rows = metrics_of(train(small_run(tmp_path, tiny_model_folder, optimizer={"learning_rate": 3e-3}, **changes)).folder)
    assert rows[1]["reward/mean"] < 0.4
    assert rows[-1]["reward/mean"] > 0.8


def test_the_parts_of_verdicts_and_the_unreadable_answers_are_reported(tmp_path, tiny_model_folder):
    parts = [{"verifier": VERIFIER, "name": "letters"}, {"verifier": "numeric", "options": {"extraction": "whole"}, "weight": 0.0}]
    verifier = {"name": "weighted", "options": {"parts": parts}}
    rows = metrics_of(train(small_run(tmp_path, tiny_model_folder, num_steps=2, verifier=verifier)).folder)[1:]
    for row in rows:
        assert row["verdict/letters"] == pytest.approx(row["reward/mean"])  # its weight is 1, the other's 0
        assert row["verdict/numeric"] == 0.0
        assert row["verdict/unparseable_share"] == row["verdict/timeout_share"] == 0.0  # the first part's outcome counts


def test_groups_may_be_stale_up_to_the_bound_and_are_corrected(tmp_path, tiny_model_folder):
    algorithm = {"name": "grpo", "kl": {"coefficient": 0.0}, "correction": {"level": "token", "mode": "truncate", "high": 2.0}}
    run = train(small_run(tmp_path, tiny_model_folder, batch={"max_staleness": 2}, algorithm=algorithm)).folder
    rows = metrics_of(run)[1:]
    assert 1 <= max(row["staleness/max"] for row in rows) <= 2
    assert any(row["policy/correction_weight"] != 1.0 for row in rows)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_adapters_learn_and_export_a_plain_model(tmp_path, tiny_model_folder, quantization):
    from transformers import AutoModelForCausalLM

    algorithm = {"name": "grpo", "kl": {"coefficient": 0.04}}
    result = train(
        small_run(tmp_path, tiny_model_folder, num_steps=2, model={"lora": {"rank": 4, "quantization": quantization}}, algorithm=algorithm)
    )
    plain = AutoModelForCausalLM.from_pretrained(result.export)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    before = AutoModelForCausalLM.from_pretrained(tiny_model_folder).state_dict()
    assert any(not tensor.equal(before[name]) for name, tensor in plain.state_dict().items())


def test_a_supervised_mix_is_one_more_term(tmp_path, tiny_model_folder):
    demonstrations = tmp_path / "demonstrations.jsonl"
    demonstrations.write_text("".join(json.dumps({"question": f"q{i}", "answer": "", "response": "aaa"}) + "\n" for i in range(8)))
    mix = {"data": {"path": str(demonstrations), "template": "plain", "fields": {"answer": None}}, "weight": 0.5, "samples_per_step": 4}
    rows = metrics_of(train(small_run(tmp_path, tiny_model_folder, supervised_mix=mix)).folder)[1:]
    assert rows[-1]["supervised/loss"] < rows[0]["supervised/loss"]


def test_rollouts_are_kept_for_reading(tmp_path, tiny_model_folder):
    run = train(small_run(tmp_path, tiny_model_folder, num_steps=2)).folder
    rows = RolloutTable(run / "rollouts").read(2)
    assert len(rows) == 8
    assert all(row.num_tokens <= 10 and row.first_version == 1 and row.prompt_text.startswith("say ") for row in rows)


@dataclass(frozen=True, slots=True)
class SameForAll:
    """Gives every response the same score."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(0.0, "incorrect") for _ in responses]


@dataclass(frozen=True, slots=True)
class FailsOnOdd:
    """Cannot judge every second problem."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        if int(problem.id) % 2:
            raise VerifierError("the grading service is away")
        return [verdict(response.text) for response in responses]


@dataclass(frozen=True, slots=True)
class Buggy:
    """A plug-in with a bug."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(1 / 0, "correct") for _ in responses]


def test_dynamic_sampling_without_any_signal_says_so(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, verifier={"name": f"{__name__}:SameForAll"}, algorithm={"name": "dapo", "kl": {}})
    with pytest.raises(NoLearningSignal, match="dropped 21 groups .*mean score: groups — 0: 21"):
        train(config)


def test_equal_rewards_everywhere_stop_the_run_after_patience(tmp_path, tiny_model_folder):
    guards = {"patience": 3}
    config = small_run(tmp_path, tiny_model_folder, verifier={"name": f"{__name__}:SameForAll"}, guards=guards)
    with pytest.raises(NoLearningSignal, match="all completions have the same reward.*for 3 steps in a row"):
        train(config)


def test_a_judge_that_is_often_away_ends_the_run_with_its_own_words(tmp_path, tiny_model_folder):
    write_problems(tmp_path / "problems.jsonl", 200)
    config = small_run(tmp_path, tiny_model_folder, num_steps=100, verifier={"name": f"{__name__}:FailsOnOdd"})
    with pytest.raises(TooManyVerifierFailures, match="the grading service is away"):
        train(config)


def test_a_bug_in_a_verifier_is_never_a_score_of_zero(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, verifier={"name": f"{__name__}:Buggy"}, held_out={"num_problems": None})
    with pytest.raises(TooManyVerifierFailures, match="ZeroDivisionError"):
        train(config)


def test_a_run_that_cannot_start_leaves_no_folder_behind(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, data={"path": str(tmp_path / "missing.jsonl")})
    with pytest.raises(DataError, match="missing.jsonl"):
        train(config)
    assert not (tmp_path / "runs").exists()
