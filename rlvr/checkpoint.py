"""Checkpoints that are either whole or not there: written aside, fsynced, renamed, and only then does `latest` move.

A checkpoint is a folder `step_000040` with a manifest of sizes and checksums. What is in it
is the business of the writer that is passed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlvr.distributed import ALONE, Ranks
from rlvr.errors import CheckpointError

MANIFEST = "manifest.json"
LATEST = "latest"
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished checkpoint; `score` is the held-out accuracy it was saved with, if there was one."""

    folder: Path
    step: int
    score: float | None


class CheckpointStore:
    """The checkpoints of one run: saves atomically, keeps the last few and the best, verifies on reading."""

    def __init__(self, folder: Path, *, keep_last: int, keep_best: bool) -> None:
        self.folder = folder
        self._keep_last = keep_last
        self._keep_best = keep_best

    def save(self, step: int, write: Callable[[Path], None], *, score: float | None = None, ranks: Ranks = ALONE) -> Checkpoint:
        """Let `write` fill a folder, on each of the ranks, then make it the latest checkpoint in one rename.

        Raises: CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        unfinished = self.folder / f"{_UNFINISHED}{step:06d}"
        final = self.folder / f"step_{step:06d}"
        try:
            if ranks.is_main:
                self._make(unfinished)
            ranks.meet()
            write(unfinished)
            ranks.meet()
            if not ranks.is_main:
                return Checkpoint(final, step, score)
            _write_manifest(unfinished, step, score)
            _sync_tree(unfinished)
            if final.exists():
                shutil.rmtree(final)
            unfinished.rename(final)
            _sync_folder(self.folder)
            self._point_latest_at(final)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, RuntimeError) and not _is_write_failure(error):
                raise
            free = shutil.disk_usage(self.folder).free // 2**20
            raise CheckpointError(
                f"cannot write checkpoint {final}: {error} ({free} MiB free on that disk). Earlier checkpoints are untouched: "
                "free some space and go on with --resume"
            ) from error
        self._prune(step)
        return Checkpoint(final, step, score)

    def _make(self, unfinished: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Make an older checkpoint the latest; those after it belong to a course that was left, and the next save removes them."""
        self._point_latest_at(checkpoint.folder)

    def all(self) -> list[Checkpoint]:
        """Every finished checkpoint, oldest first."""
        return sorted((_read(folder) for folder in self.folder.glob("step_*") if (folder / MANIFEST).exists()), key=lambda c: c.step)

    def latest(self) -> Checkpoint | None:
        """The checkpoint `latest` names, verified; None before the first save."""
        pointer = self.folder / LATEST
        if not pointer.exists():
            return None
        return open_checkpoint(self.folder / pointer.read_text().strip())

    def best(self) -> Checkpoint | None:
        """The checkpoint with the highest score, the later of equals; None when none has a score."""
        return _best(self.all())

    def _point_latest_at(self, folder: Path) -> None:
        aside = self.folder / f"{LATEST}.new"
        aside.write_text(folder.name + "\n")
        _sync_file(aside)
        aside.replace(self.folder / LATEST)
        _sync_folder(self.folder)

    def _prune(self, step: int) -> None:
        """Remove all but the last few up to `step`, which was just saved, and the best of them."""
        checkpoints = self.all()
        course = [checkpoint for checkpoint in checkpoints if checkpoint.step <= step]
        keep = {checkpoint.folder for checkpoint in course[-self._keep_last :]}
        if self._keep_best and (best := _best(course)) is not None:
            keep.add(best.folder)
        for checkpoint in checkpoints:
            if checkpoint.folder not in keep:
                # Renamed first: a kill in the middle of the removal must not leave half a checkpoint under a good name.
                doomed = self.folder / f"{_UNFINISHED}{checkpoint.folder.name}"
                checkpoint.folder.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def _best(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score is not None]
    return max(scored, key=lambda checkpoint: (checkpoint.score, checkpoint.step), default=None)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Verify a checkpoint folder against its manifest and return it.

    Raises: CheckpointError: it is missing, unfinished or damaged; names an older one that can be resumed from.
    """
    fault = _find_fault(folder)
    if fault is None:
        return _read(folder)
    others = sorted((other for other in folder.parent.glob("step_*") if other != folder and _find_fault(other) is None), reverse=True)
    remedy = f"go on from the one before with --resume {others[0]}" if others else "no other checkpoint is whole: start anew"
    raise CheckpointError(f"checkpoint {folder} cannot be used: {fault}; {remedy}")


def _find_fault(folder: Path) -> str | None:
    manifest = folder / MANIFEST
    if not folder.is_dir():
        return "the folder does not exist"
    try:
        files: dict[str, str] = json.loads(manifest.read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    for name, checksum in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _checksum(path) != checksum:
            return f"{name} is damaged: its checksum is not the one in {MANIFEST}"
    return None


def _read(folder: Path) -> Checkpoint:
    manifest = json.loads((folder / MANIFEST).read_text())
    return Checkpoint(folder, manifest["step"], manifest["score"])


def _write_manifest(folder: Path, step: int, score: float | None) -> None:
    files = {str(path.relative_to(folder)): _checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MANIFEST).write_text(json.dumps({"step": step, "score": score, "files": files}, indent=1))


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_write_failure(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error.__cause__ or error.__context__, OSError) or "write" in text or "no space" in text or "unexpected pos" in text


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync_file(path)
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
