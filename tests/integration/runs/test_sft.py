"""A supervised run stops where it should, also when it is resumed, and never learns nothing in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlvr.config import SftConfig
from rlvr.errors import NonFinite
from rlvr.run_sft import sft
from rlvr.tracking.metrics import comparable_lines, read_metrics
from tests.integration.runs.small_runs import VERIFIER, merge


def small_sft(folder: Path, model: Path, /, **changes: Any) -> SftConfig:
    """Six steps on four demonstrations, with a checkpoint after each and a validation after every second."""
    data = folder / "demonstrations.jsonl"
    data.write_text("".join(json.dumps({"question": f"q{i}", "answer": "a", "response": "aaa"}) + "\n" for i in range(8)))
    settings: dict[str, Any] = {
        "runs_folder": str(folder / "runs"),
        "name": "small",
        "num_steps": 6,
        "num_threads": 1,
        "model": {"path": str(model)},
        "data": {"path": str(data), "template": "plain", "fields": {"answer": None}},
        "samples_per_step": 4,
        "optimizer": {"learning_rate": 1e-3},
        "early_stop": {
            "data": {"path": str(data), "template": "plain"},
            "verifier": {"name": VERIFIER},
            "sampling": {"max_new_tokens": 8},
            "every": 2,
            "accuracy": 1.0,
        },
        "checkpoint": {"every": 1, "keep_last": 6},
        "tracking": {"sinks": []},
    }
    return SftConfig.model_validate(merge(settings, changes))


def test_a_run_that_stopped_early_stays_stopped_when_it_is_resumed(tmp_path, tiny_model_folder):
    # Random characters are lower-case letters often enough for any of eight answers to count.
    config = small_sft(tmp_path, tiny_model_folder, early_stop={"accuracy": 1e-9}, optimizer={"learning_rate": 1e-2})
    stopped = sft(config)
    assert stopped.validation is not None and stopped.validation.score > 0 and stopped.steps_done < 6
    again = sft(config, resume=stopped.folder)
    assert (again.steps_done, again.validation) == (stopped.steps_done, stopped.validation)


def test_resumed_with_dropout_it_equals_the_uninterrupted_run(tmp_path, tiny_model_folder):
    lora = {"model": {"lora": {"rank": 2, "dropout": 0.5}}, "optimizer": {"learning_rate": 1e-2}}
    whole = sft(small_sft(tmp_path, tiny_model_folder, name="whole", **lora)).folder
    parts = small_sft(tmp_path, tiny_model_folder, name="parts", **lora)
    run = sft(parts).folder
    sft(parts, resume=run / "checkpoints" / "step_000003")
    assert comparable_lines(run / "metrics.jsonl") == comparable_lines(whole / "metrics.jsonl")


def test_the_best_checkpoint_is_chosen_by_the_validation(tmp_path, tiny_model_folder):
    run = sft(small_sft(tmp_path, tiny_model_folder, num_steps=4)).folder
    scores = {path.name: json.loads((path / "manifest.json").read_text())["score"] for path in sorted((run / "checkpoints").glob("step_*"))}
    measured = {row.step: row.values.get("validation/sampled_accuracy") for row in read_metrics(run / "metrics.jsonl")}
    assert scores == {f"step_{step:06d}": measured[step] for step in (1, 2, 3, 4)}
    assert scores["step_000001"] is None and scores["step_000002"] is not None


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, tiny_model_folder):
    with pytest.raises(NonFinite):
        sft(small_sft(tmp_path, tiny_model_folder, optimizer={"learning_rate": 1e30}))
