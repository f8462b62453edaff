"""Lets groups that are made side by side ask their engine again together, in one order, whatever their verifiers took.

An engine that decodes batch after batch gives the same numbers, to the last bit, only for the same batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Gathering:
    """Those who take part wait for each other, and go on in the order of their numbers."""

    def __init__(self) -> None:
        self._expected: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    @contextmanager
    def taking_part(self, number: int) -> Iterator[None]:
        """Have the others wait for this one, until it has waited for them or leaves."""
        self._expected.add(number)
        try:
            yield
        finally:
            self._expected.discard(number)
            self._waiting.pop(number, None)
            self._go_on()

    async def everyone(self, number: int) -> None:
        """Wait until all who take part wait here or have left."""
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._go_on()
        await future

    def _go_on(self) -> None:
        if self._expected != self._waiting.keys():
            return
        for number in sorted(self._waiting):
            future = self._waiting.pop(number)
            if not future.done():  # Its task was cancelled.
                future.set_result(None)
        self._expected.clear()
