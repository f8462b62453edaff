"""Checkpoints are whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr.checkpoint import CheckpointStore, open_checkpoint
from rlvr.errors import CheckpointError


def store(folder: Path, keep_last: int = 2, keep_best: bool = True) -> CheckpointStore:
    return CheckpointStore(folder, keep_last=keep_last, keep_best=keep_best)


def write_text(text: str):
    def write(folder: Path) -> None:
        (folder / "export").mkdir()
        (folder / "export" / "weights.txt").write_text(text)
        (folder / "state.json").write_text(json.dumps({"text": text}))

    return write


def test_latest_is_what_was_saved_last(tmp_path):
    checkpoints = store(tmp_path)
    assert checkpoints.latest() is None
    checkpoints.save(1, write_text("one"))
    checkpoints.save(2, write_text("two"))
    assert checkpoints.latest().step == 2
    assert (checkpoints.latest().folder / "export" / "weights.txt").read_text() == "two"


def test_the_last_two_and_the_best_are_kept(tmp_path):
    checkpoints = store(tmp_path)
    for step, score in enumerate([0.5, 0.9, 0.6, 0.7, 0.8], start=1):
        checkpoints.save(step, write_text(str(step)), score=score)
    assert [checkpoint.step for checkpoint in checkpoints.all()] == [2, 4, 5]
    assert checkpoints.best().step == 2


def test_a_damaged_checkpoint_is_named_with_the_one_to_resume_from(tmp_path):
    checkpoints = store(tmp_path)
    checkpoints.save(1, write_text("one"))
    damaged = checkpoints.save(2, write_text("two")).folder
    (damaged / "export" / "weights.txt").write_text("tw0")
    with pytest.raises(CheckpointError, match=r"step_000002 cannot be used: export/weights.txt is damaged.*--resume .*step_000001"):
        checkpoints.latest()
    assert open_checkpoint(tmp_path / "step_000001").step == 1


def test_a_missing_file_is_named(tmp_path):
    folder = store(tmp_path).save(1, write_text("one")).folder
    (folder / "state.json").unlink()
    with pytest.raises(CheckpointError, match="state.json is missing; no other checkpoint is whole"):
        open_checkpoint(folder)


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path):
    checkpoints = store(tmp_path)
    checkpoints.save(1, write_text("one"))

    def full_disk(folder: Path) -> None:
        (folder / "half").write_text("half")
        with open("/dev/full", "w") as device:
            device.write("x" * 100_000)

    with pytest.raises(CheckpointError, match="No space left on device.*Earlier checkpoints are untouched"):
        checkpoints.save(2, full_disk)
    assert checkpoints.latest().step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_000001"]


WRITER = """
import sys
from pathlib import Path
from rlvr.checkpoint import CheckpointStore
checkpoints = CheckpointStore(Path(sys.argv[1]), keep_last=2, keep_best=False)
def write(folder):
    for part in range(20):
        (folder / f"part_{part}").write_bytes(step.to_bytes(4, "little") * 20_000)
for step in range(1, 10_000):
    checkpoints.save(step, write)
    print(step, flush=True)
"""


def test_killed_at_any_moment_latest_is_always_whole(tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.01 + 0.037 * attempt)
        os.kill(writer.pid, signal.SIGKILL)
        reported = 1 + len(writer.stdout.readlines())
        writer.wait()
        latest = store(folder).latest()
        assert latest is not None and latest.step >= reported
        parts = {(latest.folder / f"part_{part}").read_bytes() for part in range(20)}
        assert parts == {latest.step.to_bytes(4, "little") * 20_000}


def test_going_on_from_an_older_checkpoint_leaves_the_later_ones_behind(tmp_path):
    checkpoints = store(tmp_path)
    for step, score in enumerate([0.5, 0.9, 0.6, 0.7, 0.8], start=1):
        checkpoints.save(step, write_text(str(step)), score=score)
    checkpoints.go_on_from(open_checkpoint(tmp_path / "step_000002"))
    assert checkpoints.latest().step == 2  # A kill before the next save resumes the new course, not the one that was left.
    checkpoints.save(3, write_text("again"), score=0.1)
    assert checkpoints.latest().step == 3
    assert (checkpoints.latest().folder / "state.json").read_text() == json.dumps({"text": "again"})
    assert [checkpoint.step for checkpoint in checkpoints.all()] == [2, 3]
