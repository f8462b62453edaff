"""A killed run, resumed, ends where the uninterrupted one ends, bit for bit."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlvr.config import RunConfig
from rlvr.config_files import write_yaml
from rlvr.errors import CheckpointError
from rlvr.run import train
from rlvr.tracking.metrics import comparable_lines, read_metrics
from tests.integration.runs.small_runs import small_run

ALGORITHMS = {
    "grpo": {"name": "grpo", "kl": {"coefficient": 0.0}},
    "dapo with several updates": {"name": "dapo"},
    "prime and its reward model": {"name": "prime"},
    "rloo with adaptive kl in the reward": {"name": "rloo", "kl": {"coefficient": 0.05, "controller": "adaptive", "target": 0.1}},
}


def weights(run: Path, step: int = 8) -> dict:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / "export" / "model.safetensors")


def assert_same_run(one: Path, other: Path, *, step: int = 8) -> None:
    assert comparable_lines(one / "metrics.jsonl") == comparable_lines(other / "metrics.jsonl")
    ours, theirs = weights(one, step), weights(other, step)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def start(config_file: Path, *arguments: str, largest_file: int | None = None) -> subprocess.Popen:
    repository = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlvr", "train", *([str(config_file)] if not arguments else []), *arguments]

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=limit
    )


def test_killed_at_random_moments_and_resumed_it_equals_the_uninterrupted_run(tmp_path, tiny_model_folder):
    whole = train(small_run(tmp_path, tiny_model_folder, name="whole")).folder
    config = small_run(tmp_path, tiny_model_folder, name="killed")
    run = Path(config.runs_folder) / "killed"
    write_yaml(config, tmp_path / "killed.yaml")
    moments = random.Random(0)
    process, kills = start(tmp_path / "killed.yaml"), 0
    while kills < 4:
        wait_for_checkpoint(run, process, more_than=latest_step(run))
        time.sleep(moments.uniform(0, 0.15))  # Somewhere in the two steps that follow, or in the next save.
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        process = start(tmp_path / "killed.yaml", "--resume", str(run))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert kills >= 2
    assert_same_run(whole, run)


def wait_for_checkpoint(run: Path, process: subprocess.Popen, *, more_than: int) -> None:
    deadline = time.monotonic() + 120
    while latest_step(run) <= more_than and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def latest_step(run: Path) -> int:
    latest = run / "checkpoints" / "latest"
    return int(latest.read_text().strip().removeprefix("step_")) if latest.exists() else 0


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=list(ALGORITHMS))
def test_every_kind_of_state_survives_a_resume(tmp_path, tiny_model_folder, algorithm):
    batch = {"minibatches_per_step": 2} if algorithm["name"] == "dapo" else {}
    settings = {"algorithm": algorithm, "batch": batch}
    run_whole_and_in_parts(lambda name: small_run(tmp_path, tiny_model_folder, name=name, **settings))


def run_whole_and_in_parts(config_of: Callable[[str], RunConfig]) -> tuple[Path, Path]:
    """Run eight steps, and again with a stop after four; both must be the same. Return the folders of both."""
    whole = train(config_of("whole")).folder
    parts = config_of("parts")
    run = train(parts).folder
    for step in (8, 6):
        remove_checkpoint(run, step)
    train(parts, resume=run / "checkpoints" / "step_000004")
    assert_same_run(whole, run)
    return whole, run


def test_going_on_from_an_older_checkpoint_takes_the_place_of_what_came_after(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, checkpoint={"keep_last": 2, "keep_best": False}, num_steps=6)
    run = train(config).folder
    checkpoints = run / "checkpoints"
    # Steps 4 and 6 are kept; from 4 to 5, which comes before the 6 that was left.
    train(config.model_copy(update={"num_steps": 5}), resume=checkpoints / "step_000004")
    assert sorted(path.name for path in checkpoints.glob("step_*")) == ["step_000004", "step_000005"]
    assert latest_step(run) == 5


def test_resuming_a_finished_run_tells_what_it_had_reached(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, num_steps=4)
    done = train(config)
    again = train(config, resume=done.folder)
    assert (again.first, again.last) == (done.first, done.last)
    assert again.export == done.export and again.export.is_dir()


def test_a_fixed_kl_coefficient_can_be_changed_on_resume(tmp_path, tiny_model_folder):
    def config(coefficient: float, num_steps: int):
        return small_run(tmp_path, tiny_model_folder, num_steps=num_steps, algorithm={"name": "grpo", "kl": {"coefficient": coefficient}})

    run = train(config(0.5, 2)).folder
    train(config(0.0, 3), resume=run)
    assert [row.values["policy/kl_coefficient"] for row in read_metrics(run / "metrics.jsonl")[1:]] == [0.5, 0.5, 0.0]


def remove_checkpoint(run: Path, step: int) -> None:
    folder = run / "checkpoints" / f"step_{step:06d}"
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_two_runs_of_one_seed_are_equal_and_another_seed_differs(tmp_path, tiny_model_folder):
    one = train(small_run(tmp_path, tiny_model_folder, name="one")).folder
    same = train(small_run(tmp_path, tiny_model_folder, name="same")).folder
    other = train(small_run(tmp_path, tiny_model_folder, name="other", seed=1)).folder
    assert_same_run(one, same)
    assert comparable_lines(one / "metrics.jsonl") != comparable_lines(other / "metrics.jsonl")


def test_a_damaged_checkpoint_is_refused_and_the_one_before_resumes(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder)
    run = train(config).folder
    damaged = run / "checkpoints" / "step_000008" / "policy" / "policy_00000.pt"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"policy/policy_00000.pt is damaged.*--resume .*step_000006"):
        train(config, resume=run)
    train(config, resume=run / "checkpoints" / "step_000006")
    assert latest_step(run) == 8


def test_a_checkpoint_that_cannot_be_written_is_one_clear_line_and_the_run_goes_on_later(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, num_steps=2)
    run = train(config).folder
    # Files of at most 100 kB: the policy's state, some 2 MB, fails in the middle of its writing as it does on a full disk.
    process = start(tmp_path / "unused.yaml", "--resume", str(run), "num_steps=4", largest_file=100_000)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "error: cannot write checkpoint" in output and "Earlier checkpoints are untouched" in output and "Traceback" not in output
    assert latest_step(run) == 2
    train(config.model_copy(update={"num_steps": 4}), resume=run)
    assert latest_step(run) == 4
