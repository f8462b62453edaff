"""Work on many items at once, results in order."""

from __future__ import annotations

import asyncio

import pytest

from rlvr.in_order import in_order


def test_results_come_in_the_order_of_the_items_with_so_many_at_once() -> None:
    running = most = 0
    taken: list[int] = []

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 if item == 0 else 0.0)
        running -= 1
        return item * 10

    asyncio.run(in_order(range(7), work, taken.append, concurrency=3))
    assert (taken, most) == ([0, 10, 20, 30, 40, 50, 60], 3)


@pytest.mark.parametrize("where", ["work", "take"])
def test_the_first_failure_is_raised_as_it_is_and_ends_the_rest(where: str) -> None:
    ended: list[int] = []

    async def work(item: int) -> int:
        if item == 1 and where == "work":
            raise OSError("disk full")
        try:
            await asyncio.sleep(60 if item > 1 else 0)
        except asyncio.CancelledError:
            ended.append(item)
            raise
        return item

    def take(result: int) -> None:
        if result == 1 and where == "take":
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(in_order(range(4), work, take, concurrency=4))
    assert sorted(ended) == [2, 3]
