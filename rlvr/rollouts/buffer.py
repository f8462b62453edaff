"""The bounded FIFO between sampling and learning: it owns the slots, the order and with them the staleness bound.

There are `(max_staleness + 1) * groups_per_step` slots. A slot is taken when a prompt is admitted and returned when its group was trained
on or dropped. Groups leave in the order of admission, so at most `max_staleness` steps pass between a group's sampling and its use:
when it is admitted, fewer than that many steps' worth of groups stand before it.

With over-sampling there are more slots, groups leave as they are finished, and what would be too stale for the next step is cut: its prompt
is admitted again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.types import RolloutGroup


@dataclass(frozen=True, slots=True)
class BufferState:
    """What a checkpoint keeps: the next index to admit, indices whose groups were being sampled, and finished groups waiting."""

    next_index: int
    in_flight: tuple[int, ...]
    waiting: tuple[RolloutGroup, ...]


class RolloutBuffer:
    """Hands out admission indices while slots are free, and finished groups in admission order.

    With `max_staleness` 0 nothing is admitted until the trainer asks for groups: sampling and learning alternate.
    """

    def __init__(
        self,
        *,
        groups_per_step: int,
        max_staleness: int,
        oversampling: float = 0.0,
        steps_done: int = 0,
        first_index: int = 0,
        stride: int = 1,
        state: BufferState | None = None,
    ) -> None:
        """`oversampling`: groups beyond those a step needs, as a share of them. `steps_done`: the version of the policy to begin with.
        `first_index` and `stride`: which places of the prompt stream are this buffer's; `first_index` only without a `state`."""
        self._oversamples = oversampling > 0
        self.num_slots = (max_staleness + 1) * groups_per_step + math.ceil(oversampling * groups_per_step)
        self.synchronous = max_staleness == 0
        self._max_staleness = max_staleness
        self._steps_done = steps_done
        self._changed = asyncio.Condition()
        self._wanted = 0
        self._next_index = state.next_index if state else first_index
        self._stride = stride
        self._again = list(state.in_flight) if state else []
        self._in_flight: set[int] = set()
        self._waiting: dict[int, RolloutGroup] = {group.index: group for group in state.waiting} if state else {}
        # The version each was admitted under; of groups from a checkpoint it is that of their oldest token.
        self._admitted_at = {index: min(r.completion.first_version for r in group.rollouts) for index, group in self._waiting.items()}
        self._occupied = len(self._waiting)

    async def admit(self) -> list[int]:
        """Take every free slot and return one prompt index for each, at least one; waits while there is none."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._occupied < self.num_slots and (self._wanted > 0 or not self.synchronous))
            indices = [self._next() for _ in range(self.num_slots - self._occupied)]
            self._occupied += len(indices)
            self._in_flight.update(indices)
            self._admitted_at.update(dict.fromkeys(indices, self._steps_done))
            return indices

    def _next(self) -> int:
        if self._again:
            return self._again.pop(0)
        self._next_index += self._stride
        return self._next_index - self._stride

    async def put(self, group: RolloutGroup) -> None:
        """Hand in a finished group; it keeps its slot."""
        async with self._changed:
            self._in_flight.remove(group.index)
            self._waiting[group.index] = group
            self._changed.notify_all()

    async def drop(self, index: int) -> None:
        """Give up the group of this index; its slot is free at once."""
        async with self._changed:
            self._in_flight.remove(index)
            del self._admitted_at[index]
            self._occupied -= 1
            self._changed.notify_all()

    async def take(self, num_groups: int) -> list[RolloutGroup]:
        """Return the oldest groups, in admission order; waits for them. Their slots stay taken until `release`."""
        async with self._changed:
            self._wanted = num_groups
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: len(self._ready()) >= num_groups)
            finally:
                self._wanted = 0
            taken = self._ready()[:num_groups]
            for index in taken:
                del self._admitted_at[index]
            return [self._waiting.pop(index) for index in taken]

    async def cut_overdue(self) -> tuple[int, ...]:
        """Give up the groups that the next step could not use any more, finished or not; returns their indices, which are admitted again.

        Without over-sampling there are none: the order of admission keeps the bound.
        """
        if not self._oversamples:
            return ()
        async with self._changed:
            overdue = sorted(index for index, version in self._admitted_at.items() if version + self._max_staleness <= self._steps_done)
            for index in overdue:
                del self._admitted_at[index]
                self._in_flight.discard(index)
                self._waiting.pop(index, None)
            self._again = sorted([*self._again, *overdue])
            self._occupied -= len(overdue)
            self._changed.notify_all()
            return tuple(overdue)

    def _ready(self) -> list[int]:
        """Indices that may leave: with over-sampling all that are finished, else those that no older group in flight stands before."""
        if self._oversamples:
            return sorted(self._waiting)
        oldest = min([*self._in_flight, *self._again], default=self._next_index)
        return sorted(index for index in self._waiting if index < oldest)

    async def release(self, num_groups: int) -> None:
        """Return the slots of groups that were trained on; the step is done and the policy has a new version."""
        async with self._changed:
            self._steps_done += 1
            self._occupied -= num_groups
            self._changed.notify_all()

    def state(self) -> BufferState:
        """What must be saved to go on as if nothing had happened."""
        in_flight: Sequence[int] = sorted([*self._in_flight, *self._again])
        return BufferState(self._next_index, tuple(in_flight), tuple(self._waiting[index] for index in sorted(self._waiting)))
