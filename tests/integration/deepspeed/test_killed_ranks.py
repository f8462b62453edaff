"""A rank that is killed or fails ends the job within seconds and says why; resumed, the run ends where the uninterrupted one ends."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from rlvr.config import RunConfig
from rlvr.config_files import write_yaml
from tests.conftest import REPOSITORY
from tests.integration.deepspeed.launching import torchrun
from tests.integration.deepspeed.test_same_parameters import distance
from tests.integration.runs.small_runs import small_run
from tests.integration.runs.test_resume import assert_same_run, latest_step, remove_checkpoint, wait_for_checkpoint

pytestmark = [
    pytest.mark.deepspeed,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install 'rlvr[deepspeed]'"),
]

KILLS = int(os.environ.get("RLVR_KILLS", "3"))
"""The full count of the acceptance check is 20: RLVR_KILLS=20."""
END_SECONDS = 30


def start(*arguments: str | Path, num_processes: int = 2) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*torchrun(num_processes), "-m", "rlvr", "train", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ranks_of(job: subprocess.Popen) -> dict[int, psutil.Process]:
    """The processes of a job by rank, as soon as all are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = {}
        for process in psutil.Process(job.pid).children():
            try:
                found[int(process.environ()["RANK"])] = process
            except (psutil.Error, KeyError):
                continue
        if len(found) == 2:
            return found
        time.sleep(0.01)
    raise AssertionError("the ranks did not start")


def written(config: RunConfig, folder: Path) -> Path:
    path = folder / f"{config.name}.yaml"
    write_yaml(config, path)
    return path


def divided_run(folder: Path, model: Path, name: str, /, **changes) -> RunConfig:
    deepspeed = {"zero_stage": 2} | changes.pop("deepspeed", {})
    return small_run(folder, model, name=name, deepspeed=deepspeed, **changes)


def finished(job: subprocess.Popen) -> str:
    output, _ = job.communicate(timeout=180)
    assert job.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """An uninterrupted run of two processes in stage 2."""
    folder = tmp_path_factory.mktemp("whole")
    config = divided_run(folder, tiny_model_folder, "whole", num_steps=8, model={"dtype": "float32"})
    finished(start(written(config, folder)))
    return folder / "runs" / "whole"


def test_killed_at_random_moments_and_resumed_it_equals_the_uninterrupted_run(tmp_path, tiny_model_folder):
    steps = {"num_steps": 8 + 2 * KILLS}
    uninterrupted = divided_run(tmp_path, tiny_model_folder, "uninterrupted", **steps)
    finished(start(written(uninterrupted, tmp_path)))
    killed = divided_run(tmp_path, tiny_model_folder, "killed", **steps)
    run = Path(killed.runs_folder) / "killed"
    moments = random.Random(0)
    job = start(written(killed, tmp_path))
    for kill in range(KILLS):
        ranks = ranks_of(job)
        if moments.random() < 0.7 or latest_step(run) == 0:
            wait_for_checkpoint(run, job, more_than=latest_step(run))
            time.sleep(moments.uniform(0, 0.3))  # Somewhere in the steps that follow, or in a save.
        else:
            time.sleep(moments.uniform(0, 6))  # While it starts, joins, loads.
        if job.poll() is not None:
            break
        ranks[kill % 2].send_signal(signal.SIGKILL)
        began = time.monotonic()
        output, _ = job.communicate(timeout=END_SECONDS)
        print(f"kill {kill} of rank {kill % 2}: ended after {time.monotonic() - began:.1f} s at step {latest_step(run)}")
        assert job.returncode != 0
        job = start("--resume", run)
    finished(job)
    step = steps["num_steps"]
    assert_same_run(Path(uninterrupted.runs_folder) / "uninterrupted", run, step=step)


def test_an_error_of_one_rank_ends_the_job_and_is_shown_with_its_rank(tmp_path, tiny_model_folder):
    config = divided_run(
        tmp_path, tiny_model_folder, "failing", verifier={"name": f"{FailingOnRankOne.__module__}:FailingOnRankOne", "max_attempts": 1}
    )
    began = time.monotonic()
    output, _ = start(written(config, tmp_path)).communicate(timeout=120)
    assert "error: rank 1: the verifier could not judge" in output
    assert "the judge of rank 1 is away" in output
    assert "Traceback" not in output.partition("torch/distributed/elastic")[0]
    assert time.monotonic() - began < 90


class FailingOnRankOne:
    """A verifier that works on one machine and not on another."""

    async def __call__(self, problem, responses):
        from verifiers.errors import VerifierError
        from verifiers.types import Verdict

        if os.environ["RANK"] == "1":
            raise VerifierError("the judge of rank 1 is away")
        return [Verdict(float(len(response.text) % 2), "correct") for response in responses]


@pytest.mark.parametrize(
    ("num_processes", "overrides"),
    [(1, ["deepspeed=null"]), (1, ["deepspeed.zero_stage=3"]), (2, ["deepspeed.zero_stage=1"])],
    ids=["plain torch", "one process in stage 3", "another stage"],
)
def test_a_run_goes_on_with_other_processes_and_stages(whole, tmp_path, num_processes, overrides):
    shutil.copytree(whole, tmp_path / "moved")
    checkpoints = tmp_path / "moved" / "checkpoints"
    remove_checkpoint(tmp_path / "moved", 8)
    finished(start("--resume", checkpoints / "step_000004", *overrides, num_processes=num_processes))
    # What is sampled and learned does not depend on who does it, but for rounding.
    assert distance(checkpoints / "step_000008" / "export", whole / "checkpoints" / "step_000008" / "export") < 1e-5
