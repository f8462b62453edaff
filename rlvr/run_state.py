"""What a checkpoint holds beside the policy: counters, the buffers, the KL coefficient, guards, random state. Read and written as JSON.

Prompts are not stored: a group's index leads back to its prompt. What belongs to one rank lies in a file of its own; a run that goes on
with another number of ranks deals out anew what was left to sample.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlvr.distributed import ALONE, Ranks
from rlvr.rollouts.buffer import BufferState
from rlvr.rollouts.group_file import group_from_record, group_record
from rlvr.types import Prompt

STATE_FILE = "run_state.json"
RANK_FILE = "rank_{:05d}.json"
RANDOM_FILE = "random_state_{:05d}.pt"


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything that decides how a run goes on, apart from the policy's own state. `buffer` and `failures` are this rank's, the rest is
    the same on all; `offences` are the main rank's."""

    steps_done: int
    buffer: BufferState
    kl_coefficient: float
    offences: dict[str, int]
    failures: tuple[bool, ...]


def save_state(folder: Path, state: RunState, ranks: Ranks = ALONE) -> None:
    """Write the state and torch's global random state into a checkpoint folder; every rank its own."""
    if ranks.is_main:
        record = {
            "steps_done": state.steps_done,
            "kl_coefficient": state.kl_coefficient,
            "offences": state.offences,
            "num_ranks": ranks.size,
        }
        (folder / STATE_FILE).write_text(json.dumps(record))
    own = {
        "failures": list(state.failures),
        "next_index": state.buffer.next_index,
        "in_flight": list(state.buffer.in_flight),
        "waiting": [group_record(group) for group in state.buffer.waiting],
    }
    (folder / RANK_FILE.format(ranks.rank)).write_text(json.dumps(own))
    torch.save(torch.get_rng_state(), folder / RANDOM_FILE.format(ranks.rank))


def load_state(folder: Path, prompt_at: Callable[[int], Prompt], ranks: Ranks = ALONE) -> RunState:
    """Read what `save_state` wrote, on any number of ranks, and restore torch's global random state where that was the same number."""
    record = json.loads((folder / STATE_FILE).read_text())
    num_ranks = record["num_ranks"]
    if num_ranks == ranks.size:
        torch.set_rng_state(torch.load(folder / RANDOM_FILE.format(ranks.rank), weights_only=True))
        own = json.loads((folder / RANK_FILE.format(ranks.rank)).read_text())
        buffer, failures = _buffer_state(own, prompt_at), own["failures"]
    else:
        each = [json.loads((folder / RANK_FILE.format(rank)).read_text()) for rank in range(num_ranks)]
        buffer = dealt_anew([_buffer_state(own, prompt_at) for own in each], ranks.rank, ranks.size)
        failures = each[ranks.rank % num_ranks]["failures"]
    return RunState(record["steps_done"], buffer, record["kl_coefficient"], record["offences"], tuple(failures))


def dealt_anew(states: Sequence[BufferState], rank: int, size: int) -> BufferState:
    """Return rank `rank` of `size` its share of what several ranks' buffers had left: every place of the prompt stream is sampled once.

    Example: two ranks that would admit places 8 and 5 next have left 5, 7 (the second's) and all from 8 on. Alone, one goes on with 5 and 7
    in flight and 8 next.
    """
    begin = max(state.next_index for state in states)
    stride = len(states)
    unseen = {index for state in states for index in range(state.next_index, begin, stride)}
    in_flight = sorted(unseen.union(*(state.in_flight for state in states)))
    waiting = sorted((group for state in states for group in state.waiting), key=lambda group: group.index)
    return BufferState(begin + (rank - begin) % size, tuple(in_flight[rank::size]), tuple(waiting[rank::size]))


def _buffer_state(record: dict, prompt_at: Callable[[int], Prompt]) -> BufferState:
    waiting = tuple(group_from_record(entry, prompt_at(entry["index"])) for entry in record["waiting"])
    return BufferState(record["next_index"], tuple(record["in_flight"]), waiting)
