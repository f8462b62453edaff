"""Keeps the buffer full: admits prompts, collects their groups, drops what cannot or need not be learned from.

With staleness 0 it works in waves (admit all free slots, wait for all of them), so that what the engine batches together depends on the
prompts alone and a run can be repeated bit for bit.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from rlvr.errors import NoLearningSignal, TooManyVerifierFailures, first_error
from rlvr.rollouts.buffer import RolloutBuffer
from rlvr.types import RolloutGroup
from verifiers.errors import VerifierError

FAILURE_WINDOW = 200
"""Groups over which the verifier's failure rate is taken (design, section 2)."""
MIN_GROUPS_TO_JUDGE = 20
"""Fewer groups than this say nothing of a rate of a few percent, unless all of them failed."""


@dataclass(slots=True)
class ProducerCounts:
    """What happened to groups since the counts were last taken."""

    dropped_uninformative: int = 0
    dropped_failed: int = 0
    cut: int = 0

    def __add__(self, other: ProducerCounts) -> ProducerCounts:
        return ProducerCounts(
            self.dropped_uninformative + other.dropped_uninformative, self.dropped_failed + other.dropped_failed, self.cut + other.cut
        )


class GroupSource(Protocol):
    """Where groups come from: a collector, or a dump that is replayed."""

    async def collect(self, index: int) -> RolloutGroup:
        """Return the group at this place of the prompt stream. Raises: VerifierError: it could not be judged."""
        ...


class Producer:
    """Fills a buffer with informative groups.

    `is_informative` is asked only when `informative_only` (dynamic sampling): a group it refuses frees its slot at once.
    """

    def __init__(
        self,
        *,
        buffer: RolloutBuffer,
        collector: GroupSource,
        informative_only: bool,
        is_informative: Callable[[RolloutGroup], bool],
        max_drops_per_step: int,
        max_failure_rate: float,
        failures: Iterable[bool] = (),
    ) -> None:
        self._buffer = buffer
        self._collector = collector
        self._informative_only = informative_only
        self._is_informative = is_informative
        self._max_drops = max_drops_per_step
        self._max_failure_rate = max_failure_rate
        self._failures: deque[bool] = deque(failures, maxlen=FAILURE_WINDOW)
        self._pass_rates: Counter[float] = Counter()
        self._drops_since_take = 0
        self._task: asyncio.Task[None] | None = None
        self._filling: dict[int, asyncio.Task[None]] = {}
        self.counts = ProducerCounts()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Producer]:
        """Produce in the background until the block ends."""
        self._task = asyncio.create_task(self._run(), name="rollout producer")
        try:
            yield self
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def take(self, num_groups: int) -> list[RolloutGroup]:
        """Return the next groups to train on.

        Raises: what ended the producer: NoLearningSignal, TooManyVerifierFailures, an engine's error.
        """
        assert self._task is not None, "take groups inside `running()`"
        taking = asyncio.create_task(self._buffer.take(num_groups))
        try:
            await asyncio.wait({taking, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                error = self._task.exception()
                assert error is not None, "the producer ends only by an error"
                raise first_error(error)
            self._drops_since_take = 0
            self._pass_rates.clear()
            await self._cut_overdue()
            return taking.result()
        finally:
            taking.cancel()

    async def _cut_overdue(self) -> None:
        """Stop sampling what the next step could not use any more."""
        for index in await self._buffer.cut_overdue():
            self.counts.cut += 1
            if (task := self._filling.pop(index, None)) is not None:
                task.cancel()

    def take_counts(self) -> ProducerCounts:
        """Return the counts since the last call and begin anew."""
        counts, self.counts = self.counts, ProducerCounts()
        return counts

    @property
    def failures(self) -> tuple[bool, ...]:
        """For each of the last groups, oldest first, whether the verifier failed at it; part of a checkpoint."""
        return tuple(self._failures)

    @property
    def failure_rate(self) -> float:
        """Share of the last groups, at most 200, that the verifier could not judge."""
        return sum(self._failures) / len(self._failures) if self._failures else 0.0

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                wave = {index: tasks.create_task(self._fill(index)) for index in await self._buffer.admit()}
                self._filling |= wave
                if self._buffer.synchronous:
                    await asyncio.wait(wave.values())

    async def _fill(self, index: int) -> None:
        try:
            group = await self._collector.collect(index)
        except VerifierError as error:
            await self._drop_failed(index, error)
            return
        if self._filling.pop(index, None) is None:
            return  # Cut while its last steps ran.
        self._failures.append(False)
        if self._informative_only and not self._is_informative(group):
            await self._drop_uninformative(group)
        else:
            await self._buffer.put(group)

    async def _drop_failed(self, index: int, error: Exception) -> None:
        if self._filling.pop(index, None) is None:
            return
        self._failures.append(True)
        self.counts.dropped_failed += 1
        await self._buffer.drop(index)
        enough = len(self._failures) >= MIN_GROUPS_TO_JUDGE or all(self._failures)
        if enough and self.failure_rate > self._max_failure_rate and sum(self._failures) > 1:
            raise TooManyVerifierFailures(
                f"the verifier could not judge {sum(self._failures)} of the last {len(self._failures)} groups "
                f"({self.failure_rate:.0%} > guards.max_failure_rate={self._max_failure_rate:.0%}); the last error: {error}"
            )

    async def _drop_uninformative(self, group: RolloutGroup) -> None:
        scores = [rollout.verdict.score for rollout in group.rollouts]
        self._pass_rates[round(sum(scores) / len(scores), 2)] += 1
        self._drops_since_take += 1
        self.counts.dropped_uninformative += 1
        await self._buffer.drop(group.index)
        if self._drops_since_take > self._max_drops:
            histogram = ", ".join(f"{rate:g}: {count}" for rate, count in sorted(self._pass_rates.items()))
            raise NoLearningSignal(
                f"dynamic sampling dropped {self._drops_since_take} groups for one step because all completions of each score the same "
                f"(mean score: groups — {histogram}). Mean 0: the problems are too hard or the answer format is never met; mean 1: they "
                "are solved. Change the data, warm the model up, raise batch.group_size, or raise batch.max_resampling"
            )
