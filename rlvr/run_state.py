"""What a checkpoint holds beside the policy: counters, the buffer, the KL coefficient, guards, random state. Read and written as JSON.

Prompts are not stored: a group's index leads back to its prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from rlvr.rollouts.buffer import BufferState
from rlvr.rollouts.group_file import group_from_record, group_record
from rlvr.types import Prompt

STATE_FILE = "run_state.json"
RANDOM_FILE = "random_state.pt"


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything that decides how a run goes on, apart from the policy's own state."""

    steps_done: int
    buffer: BufferState
    kl_coefficient: float
    offences: dict[str, int]
    failures: tuple[bool, ...]


def save_state(folder: Path, state: RunState) -> None:
    """Write the state and torch's global random state into a checkpoint folder."""
    record = {
        "steps_done": state.steps_done,
        "kl_coefficient": state.kl_coefficient,
        "offences": state.offences,
        "failures": list(state.failures),
        "next_index": state.buffer.next_index,
        "in_flight": list(state.buffer.in_flight),
        "waiting": [group_record(group) for group in state.buffer.waiting],
    }
    (folder / STATE_FILE).write_text(json.dumps(record))
    torch.save(torch.get_rng_state(), folder / RANDOM_FILE)


def load_state(folder: Path, prompt_at: Callable[[int], Prompt]) -> RunState:
    """Read what `save_state` wrote and restore torch's global random state."""
    record = json.loads((folder / STATE_FILE).read_text())
    torch.set_rng_state(torch.load(folder / RANDOM_FILE, weights_only=True))
    waiting = tuple(group_from_record(entry, prompt_at(entry["index"])) for entry in record["waiting"])
    return RunState(
        steps_done=record["steps_done"],
        buffer=BufferState(record["next_index"], tuple(record["in_flight"]), waiting),
        kl_coefficient=record["kl_coefficient"],
        offences=record["offences"],
        failures=tuple(record["failures"]),
    )
