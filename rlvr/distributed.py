"""The processes of one run, its ranks: which of them this is, and what they tell each other beside gradients.

They meet over gloo, on the CPU, whatever moves the gradients. Every method of `Ranks` but the properties is a meeting: all ranks call it,
in the same order. What a rank cannot know is whether another is still alive; `rlvr.lifeline` watches that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rlvr.config import DeepSpeedConfig
from rlvr.errors import ConfigError
from rlvr.lifeline import Lifeline

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


def current_ranks() -> Ranks:
    """The ranks this process belongs to: those of `joined_ranks`, or itself alone."""
    return _current


def print_once(text: str) -> None:
    """Print on the main rank, also before the ranks have joined and after they have parted."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


@contextmanager
def _as(ranks: Ranks) -> Iterator[Ranks]:
    global _current
    before, _current = _current, ranks
    try:
        yield ranks
    finally:
        _current = before


@contextmanager
def joined_ranks(config: DeepSpeedConfig | None) -> Iterator[Ranks]:
    """Join the ranks that a launcher (torchrun, deepspeed) started, for the length of the block; alone where there is no launcher.

    An error that leaves the block on one rank, or the death of one, ends all of them (`rlvr.lifeline`).

    Raises: ConfigError: a launcher started several processes and the configuration does not say how they train together.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if config is None:
        if size > 1 and not dist.is_initialized():  # Within `from_main` one may work by itself.
            raise ConfigError(
                f"{size} processes were started (WORLD_SIZE), but deepspeed is not set, so each would train by itself: add "
                "deepspeed.zero_stage=1, or start one process"
            )
        yield ALONE
        return
    if dist.is_initialized():
        yield _current
        return
    if size % config.sequence_parallel_size:
        raise ConfigError(f"deepspeed.sequence_parallel_size={config.sequence_parallel_size} does not divide the {size} processes")
    _join(size)
    group = dist.new_group(backend="gloo", timeout=timedelta(minutes=config.timeout_minutes))
    ranks = Ranks(dist.get_rank(), size, group, config.sequence_parallel_size)
    with Lifeline.tie(ranks.rank, size, ranks.everyones), _as(ranks):
        yield ranks
    if dist.is_initialized():  # vLLM in this process ends it with itself. Not after an error: it may wait for a rank that is gone.
        dist.destroy_process_group()


def _join(size: int) -> None:
    device = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" not in os.environ:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed looks for it.
        return
    try:
        dist.init_process_group(backend, timeout=RENDEZVOUS)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"rank {os.environ['RANK']} of {size} cannot join the others ({str(error).splitlines()[0]}): start all of them with torchrun "
            "or deepspeed, and see that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error
