"""A policy's state on disk, by parameter name: weights, AdamW's moments, the number of updates.

It says nothing of processes or ZeRO stages, so a run goes on with another number of them, or with none. Each process writes a file of its
own share of the names; a reader reads them all. What DeepSpeed calls a universal checkpoint, without a conversion in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlvr.errors import CheckpointError

PARTS = "policy_*.pt"
Moments = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class PolicyState:
    """`weights` are the model's state dict, trained weights in the precision they are trained in; `moments` what the optimizer keeps of
    each trained parameter."""

    version: int
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Moments]


def write_state(folder: Path, state: PolicyState, *, part: int = 0) -> None:
    """Write one process's share; the folder may be there."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"version": state.version, "weights": dict(state.weights), "moments": {n: dict(m) for n, m in state.moments.items()}}
    torch.save(record, folder / PARTS.replace("*", f"{part:05d}"))


def read_state(folder: Path) -> PolicyState:
    """Read all shares; tensors are read from disk when they are used.

    Raises: CheckpointError: there is none, or a file is no such state.
    """
    weights: dict[str, Tensor] = {}
    moments: dict[str, Moments] = {}
    version = None
    for file in sorted(folder.glob(PARTS)):
        try:
            record = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            version = record["version"]
            weights |= record["weights"]
            moments |= record["moments"]
        except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            raise unreadable(file, error) from error
    if version is None:
        raise unreadable(folder, FileNotFoundError(f"no {PARTS} in it"))
    return PolicyState(version, weights, moments)


def unreadable(place: Path, error: Exception) -> CheckpointError:
    """Say that a state cannot be taken over, and what to do."""
    reason = str(error).partition("\n")[0].rstrip(":")
    return CheckpointError(
        f"{place} cannot be read as this policy's state ({reason}): leave the run's model settings as they were, "
        "or resume from an older checkpoint"
    )
