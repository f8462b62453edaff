from __future__ import annotations

import asyncio
import threading
import time

import pytest
import torch

from rlvr.compute import ComputeThread


def test_all_work_runs_on_one_thread_that_is_not_the_callers():
    async def main(compute: ComputeThread) -> list[int]:
        return [await compute.run(threading.get_ident) for _ in range(3)]

    with ComputeThread() as compute:
        idents = asyncio.run(main(compute))
    assert len(set(idents)) == 1 and idents[0] != threading.get_ident()


def test_work_runs_in_the_order_it_was_submitted():
    done: list[int] = []

    async def main(compute: ComputeThread) -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(20):
                group.create_task(compute.run(done.append, i))

    with ComputeThread() as compute:
        asyncio.run(main(compute))
    assert done == list(range(20))


def test_an_exception_reaches_the_caller_and_the_thread_lives_on():
    async def main(compute: ComputeThread) -> int:
        with pytest.raises(ZeroDivisionError):
            await compute.run(lambda: 1 // 0)
        return await compute.run(int, "5", base=7)

    with ComputeThread() as compute:
        assert asyncio.run(main(compute)) == 5


def test_a_cancelled_caller_leaves_at_once_and_later_work_still_waits_for_what_was_running():
    events: list[str] = []

    def slow() -> None:
        time.sleep(0.2)
        events.append("slow ended")

    async def main(compute: ComputeThread) -> None:
        task = asyncio.create_task(compute.run(slow))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        events.append("caller left")
        await compute.run(events.append, "next began")

    with ComputeThread() as compute:
        asyncio.run(main(compute))
    assert events == ["caller left", "slow ended", "next began"]


def test_work_cancelled_before_it_began_never_runs():
    ran: list[str] = []

    async def main(compute: ComputeThread) -> None:
        first = asyncio.create_task(compute.run(time.sleep, 0.1))
        second = asyncio.create_task(compute.run(ran.append, "second"))
        await asyncio.sleep(0.02)
        second.cancel()
        await first
        await compute.run(ran.append, "third")

    with ComputeThread() as compute:
        asyncio.run(main(compute))
    assert ran == ["third"]


def test_the_number_of_torch_threads_is_set_where_the_work_runs():
    before = torch.get_num_threads()
    with ComputeThread(num_threads=2) as compute:
        assert asyncio.run(compute.run(torch.get_num_threads)) == 2
    torch.set_num_threads(before)
