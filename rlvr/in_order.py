"""Works on many items at a time and hands the results over in the order of the items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], take: Callable[[Result], None], *, concurrency: int
) -> None:
    """Work on a sliding window of `concurrency` items; each result is taken once all before it are.

    The first failure, of the work or of `take`, ends the other work and is raised as it is.
    """
    window: deque[asyncio.Task[Result]] = deque()

    async def run(item: Item) -> Result:
        return await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            for item in items:
                window.append(tasks.create_task(run(item)))
                if len(window) >= concurrency:
                    take(await window.popleft())
            while window:
                take(await window.popleft())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
