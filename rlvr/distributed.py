"""The processes of one run, its ranks: which of them this is, and what they tell each other beside gradients.

They meet over gloo, on the CPU, whatever moves the gradients. Every method of `Ranks` but the properties is a meeting: all ranks call it,
in the same order. What a rank cannot know is whether another is still alive; `rlvr.lifeline` watches that.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rlvr.config import RunConfig, SftConfig
from rlvr.errors import ConfigError
from rlvr.lifeline import Lifeline
from verifiers.errors import first_line

T = TypeVar("T")

RENDEZVOUS = timedelta(minutes=5)
"""How long ranks wait for each other at the start."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Who takes part: rank `rank` of `size`. `group` is the process group they meet in; None where there is one process.

    Neighbours by rank form teams of `team_size`, which learn from the same samples, each member from a share of their tokens.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    team_size: int = 1

    @property
    def team(self) -> int:
        """The number of this rank's team."""
        return self.rank // self.team_size

    @property
    def num_teams(self) -> int:
        return self.size // self.team_size

    @property
    def is_main(self) -> bool:
        """Whether this rank keeps the run's folder and talks to the person."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        if self.group is None:
            return values
        summed = values.clone()
        dist.all_reduce(summed, group=self.group)
        return summed

    def totals(self, values: Sequence[float]) -> list[float]:
        """Return each number's sum over all ranks, in float64."""
        return self.total(torch.tensor(values, dtype=torch.float64)).tolist()

    def largest(self, value: int) -> int:
        """Return the largest of all ranks' numbers."""
        return max(self.everyones(value))

    def everyones(self, value: T) -> list[T]:
        """Return what each rank gave, by rank."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def collected(self, value: T) -> list[T] | None:
        """Return what each rank gave, by rank, to the main rank; None to the others."""
        if self.group is None:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, dst=0, group=self.group)
        return values

    def from_main(self, make: Callable[[], T]) -> T:
        """Let the main rank alone make something, as a process without others, and give it to all."""
        if self.group is None:
            return make()
        made: list[Any] = [None]
        if self.is_main:
            with _as(ALONE):
                made[0] = make()
        dist.broadcast_object_list(made, src=0, group=self.group)
        return made[0]

    def meet(self) -> None:
        """Wait until all are here."""
        if self.group is not None:
            dist.barrier(group=self.group)


ALONE = Ranks()
_current = ALONE
_tied = False
"""Whether a `joined_ranks` block is running."""


def check_division(config: RunConfig | SftConfig, num_processes: int) -> None:
    """Raises: ConfigError: so many processes cannot share the run evenly."""
    if config.deepspeed is None:
        if num_processes > 1:
            raise ConfigError(
                f"{num_processes} processes, but deepspeed is not set, so each would train by itself: add deepspeed.zero_stage=1, or "
                "start one process"
            )
        return
    if num_processes % config.deepspeed.sequence_parallel_size:
        raise ConfigError(
            f"deepspeed.sequence_parallel_size={config.deepspeed.sequence_parallel_size} does not divide the {num_processes} processes"
        )
    if isinstance(config, RunConfig) and config.batch.prompts_per_step % num_processes:
        below = config.batch.prompts_per_step // num_processes * num_processes
        raise ConfigError(
            f"batch.prompts_per_step={config.batch.prompts_per_step} cannot be shared evenly by {num_processes} processes: "
            f"set it to {below or num_processes} or {below + num_processes}"
        )


def print_once(text: str) -> None:
    """Print on the main rank, also before the ranks have joined and after they have parted."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


@contextmanager
def _as(ranks: Ranks) -> Iterator[Ranks]:
    global _current, _tied
    before, _current, _tied = (_current, _tied), ranks, True
    try:
        yield ranks
    finally:
        _current, _tied = before


@contextmanager
def joined_ranks(config: RunConfig | SftConfig) -> Iterator[Ranks]:
    """Join the ranks that a launcher (torchrun, deepspeed) started, for the length of the block; alone where there is no launcher.

    An error that leaves the block on one rank, or the death of one, ends all of them (`rlvr.lifeline`).

    Raises: ConfigError: the launcher started processes that cannot share the run, or they do not find each other.
    """
    if _tied:
        # Joined already, by whoever prepares something first; what is prepared by one rank alone has no `deepspeed` and stays alone.
        yield ALONE if config.deepspeed is None else _current
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    check_division(config, size)
    if config.deepspeed is None:
        yield ALONE
        return
    with _tied_together(size, timedelta(minutes=config.deepspeed.timeout_minutes), config.deepspeed.sequence_parallel_size) as ranks:
        yield ranks


@contextmanager
def sharing_ranks(patience: timedelta) -> Iterator[Ranks]:
    """Join the ranks that a launcher started to share work that is not training; alone where there is no launcher.

    `patience`: how long one waits for the others at one point. Errors and deaths as in `joined_ranks`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or _tied:  # Tied: one rank prepares something by itself.
        yield ALONE
        return
    with _tied_together(size, patience, 1) as ranks:
        yield ranks


@contextmanager
def _tied_together(size: int, patience: timedelta, team_size: int) -> Iterator[Ranks]:
    group = _meeting_place(size, patience)
    ranks = Ranks(dist.get_rank(), size, group, team_size)
    try:
        with Lifeline.tie(ranks.rank, size, ranks.everyones), _as(ranks):
            yield ranks
    except BaseException:
        atexit.unregister(_part)  # It may wait for a rank that is gone.
        raise


@cache
def _meeting_place(size: int, patience: timedelta) -> Any:
    """Make the process group in which gradients move and the one in which ranks meet; they stay for the next run of these processes,
    because DeepSpeed keeps hold of them."""
    _join(size, patience)
    atexit.register(_part)
    return dist.new_group(backend="gloo", timeout=patience)


def _part() -> None:
    """End the groups with the process, unless vLLM has done so."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _join(size: int, patience: timedelta) -> None:
    """Make the process group in which gradients move; each of its collectives waits for `patience`."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" not in os.environ:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed looks for it.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=RENDEZVOUS))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"rank {os.environ['RANK']} of {size} cannot join the others ({first_line(error)}): start all of them with torchrun "
            "or deepspeed, and see that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error
