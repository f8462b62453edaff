"""Two processes, each with its own prompts, learn the reward model and the policy that one process learns from all of them."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlvr.tracking.metrics import read_metrics
from tests.integration.deepspeed.test_many_processes import run
from tests.integration.deepspeed.test_same_parameters import distance, ends, run_plainly

pytestmark = [
    pytest.mark.deepspeed,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install 'rlvr[deepspeed]'"),
]

WAYS = [
    "deepspeed.zero_stage=0",
    "deepspeed.zero_stage=1,deepspeed.balance=false",
    "deepspeed.zero_stage=2,batch.tokens_per_microbatch=40,deepspeed.offload_reference=true",
    "deepspeed.zero_stage=3",
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """Six steps of PRIME by plain torch on one process, with its groups dumped; the scores are shares of letters."""
    batch = {"prompts_per_step": 4, "tokens_per_microbatch": 100}
    algorithm = {"name": "prime", "kl": {}, "informative_groups_only": False, "implicit": {"learning_rate": 3e-4, "beta": 0.5}}
    return run_plainly(tmp_path_factory.mktemp("plain"), tiny_model_folder, num_steps=6, batch=batch, algorithm=algorithm)


def test_two_processes_learn_what_one_learns(plain, tmp_path):
    end = plain / "runs" / "small" / "checkpoints" / "step_000006"
    assert distance(plain / "start", end / "implicit_reward_export") > 1e-3  # What is compared is not met by standing still.
    exports = ends(plain, tmp_path, WAYS, 2)
    distances = {
        way: (distance(end / "export", export), distance(end / "implicit_reward_export", export.parent / "implicit_reward_export"))
        for way, export in exports.items()
    }
    print(json.dumps(distances, indent=1))
    assert all(found < 1e-5 for pair in distances.values() for found in pair), distances
    for export in exports.values():
        rows = zip(read_metrics(export.parents[2] / "metrics.jsonl"), read_metrics(plain / "runs/small/metrics.jsonl"), strict=True)
        for ours, alone in rows:
            names = [name for name in alone.values if name.startswith("implicit_reward/")]
            assert [ours.values[name] for name in names] == pytest.approx([alone.values[name] for name in names], rel=1e-3, abs=1e-4)


def test_two_processes_go_on_with_the_reward_model_they_saved(plain, tmp_path):
    settings = ["num_steps=4", "checkpoint.every=2", f"runs_folder={tmp_path}", "name=two", "deepspeed.zero_stage=2"]
    run("train", plain / "config.yaml", *settings)
    checkpoints = tmp_path / "two" / "checkpoints"
    names = ("export", "implicit_reward_export")
    whole = [load_file(checkpoints / "step_000004" / name / "model.safetensors") for name in names]
    shutil.rmtree(checkpoints / "step_000004")
    run("train", "--resume", checkpoints / "step_000002")
    again = [load_file(checkpoints / "step_000004" / name / "model.safetensors") for name in names]
    assert all(ours[name].equal(theirs[name]) for ours, theirs in zip(whole, again, strict=True) for name in ours)
