"""However the work is divided (processes, ZeRO stages, micro-batches, packing), ten steps of GRPO end at the same parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlvr.config_files import write_yaml
from rlvr.policy.state_files import read_state
from rlvr.run import train
from tests.conftest import REPOSITORY
from tests.integration.deepspeed.launching import torchrun
from tests.integration.runs.small_runs import small_run

pytestmark = [
    pytest.mark.deepspeed,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install 'rlvr[deepspeed]'"),
]

SCRIPT = Path(__file__).with_name("replayed_runs.py")
STAGES = [f"deepspeed.zero_stage={stage}" for stage in range(4)]
LAYOUTS = [
    "deepspeed.zero_stage=2,batch.tokens_per_microbatch=40",
    "deepspeed.zero_stage=1,batch.share_prompts=false",
    "deepspeed.zero_stage=3,model.attention=padded",
    "deepspeed.zero_stage=2,deepspeed.balance=false",
    "deepspeed.zero_stage=1,deepspeed.offload_optimizer=true",
    "deepspeed.zero_stage=3,deepspeed.offload_optimizer=true,deepspeed.offload_parameters=true,model.gradient_checkpointing=true",
    "deepspeed.zero_stage=0,deepspeed.offload_reference=true,model.offload_activations=true",
]
SHARED_SEQUENCES = [f"deepspeed.sequence_parallel_size=2,{way}" for way in (STAGES[1], STAGES[3], LAYOUTS[0])]
LORA = "model.lora.rank=4,algorithm.kl.coefficient=0.05"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A run of ten steps by plain torch on one process, with its groups dumped: KL to a reference, and two updates a step, so that all four
    log-probs take part."""
    batch = {"prompts_per_step": 4, "minibatches_per_step": 2, "tokens_per_microbatch": 100}
    folder = tmp_path_factory.mktemp("plain")
    return run_plainly(folder, tiny_model_folder, num_steps=10, batch=batch, algorithm={"kl": {"coefficient": 0.05}})


def run_plainly(folder: Path, model: Path, **settings: Any) -> Path:
    """Train by plain torch on one process and dump the groups; the configuration and the model before it stand beside the run."""
    config = small_run(
        folder,
        model,
        model={"dtype": "float32"},
        optimizer={"learning_rate": 3e-4},
        held_out={"num_problems": 2, "every": 0},
        checkpoint={"every": 0},
        rollouts={"dump": True},
        **settings,
    )
    write_yaml(config.model_copy(update={"rollouts": config.rollouts.model_copy(update={"dump": False})}), folder / "config.yaml")
    train(config)
    shutil.copytree(model, folder / "start")
    return folder


def ends(plain: Path, tmp_path: Path, ways: list[str], num_processes: int) -> dict[str, Path]:
    tmp_path.mkdir(exist_ok=True)
    result = tmp_path / "result.json"
    given = [plain / "config.yaml", plain / "runs" / "small" / "groups", tmp_path / "runs"]
    arguments = [str(SCRIPT), *map(str, given), *ways, str(result)]
    command = torchrun(num_processes) if num_processes > 1 else [sys.executable]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return {way: Path(export) for way, export in json.loads(result.read_text()).items()}


def distance(one: Path, other: Path) -> float:
    """The difference of two exports' parameters, as a share of their norm."""
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    difference = sum((ours[name].double() - theirs[name].double()).square().sum() for name in ours)
    return float(torch.sqrt(difference / sum(ours[name].double().square().sum() for name in ours)))


@pytest.mark.parametrize(
    ("num_processes", "ways"), [(1, STAGES), (2, STAGES + LAYOUTS + SHARED_SEQUENCES)], ids=["one process", "two processes"]
)
def test_every_division_of_the_work_ends_at_the_parameters_of_plain_torch(plain, tmp_path, num_processes, ways):
    end = plain / "runs" / "small" / "checkpoints" / "step_000010" / "export"
    assert distance(plain / "start", end) > 1e-3  # What is compared is not met by standing still.
    exports = ends(plain, tmp_path, ways, num_processes)
    distances = {way: distance(end, export) for way, export in exports.items()}
    print(json.dumps(distances, indent=1))
    assert all(found < 1e-5 for found in distances.values()), distances


def test_adapters_end_alike_too_and_their_base_stays(plain, tmp_path):
    """The base is the reference, divided with the rest in stage 3; adapters' dropout is off, since each process draws its own."""
    ways = [f"deepspeed.zero_stage={stage},{LORA}" for stage in (0, 2, 3)]
    alone = ends(plain, tmp_path / "alone", [f"deepspeed=null,{LORA}"], 1)
    exports = ends(plain, tmp_path / "two", ways, 2)
    distances = {way: distance(*alone.values(), export) for way, export in exports.items()}
    print(json.dumps(distances, indent=1))
    assert all(found < 1e-5 for found in distances.values()), distances


def test_bfloat16_weights_learn_in_float32(plain, tmp_path):
    """A learning rate of 1e-5 moves weights by less than bfloat16 can tell; the optimizer's float32 weights keep it."""
    settings = "model.weights_dtype=bfloat16,model.dtype=bfloat16,optimizer.learning_rate=1e-5"
    exports = list(ends(plain, tmp_path, [f"deepspeed.zero_stage={stage},{settings}" for stage in (1, 2, 3)], 2).values())
    kept = [read_state(export.parent / "policy").weights for export in exports]
    start = load_file(plain / "start" / "model.safetensors")
    for state in kept:
        name = "model.layers.0.mlp.up_proj.weight"
        moved = (state[name] - start[name].bfloat16().float()).abs()
        assert state[name].dtype == torch.float32
        assert 0 < moved.median() < 2e-4
    assert all(distance(exports[0], export) < 2e-4 for export in exports)
