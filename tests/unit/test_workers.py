"""Worker processes: killed at their deadline whatever they do, replaced, and never left behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from verifiers.workers import DeadlineExceeded, WorkerCrashed, WorkerError, WorkerPool, WorkerUnavailable, shared_pool

MISBEHAVE, DOUBLE = "tests.unit.worker_functions:misbehave", "tests.unit.worker_functions:double"


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(MISBEHAVE, num_workers=1, deadline_seconds=0.4, memory_mib=1024)
    yield pool
    pool.close()


def works(pool: WorkerPool) -> bool:
    return pool.call("fine", 7)[:2] == ["fine", 7]


@pytest.mark.parametrize("how", ["loop", "c code"])
def test_a_call_past_its_deadline_is_killed_and_the_next_one_served(pool: WorkerPool, how: str) -> None:
    assert works(pool)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="after 0.4 s"):
        pool.call(how)
    assert time.monotonic() - started < 10
    assert works(pool)
    assert (pool.counters.deadlines_passed, pool.counters.workers_started) == (1, 2)


@pytest.mark.parametrize("how", ["segfault", "exit"])
def test_a_worker_that_crashes_is_told_from_one_that_is_late_and_replaced(pool: WorkerPool, how: str) -> None:
    with pytest.raises(WorkerCrashed):
        pool.call(how)
    assert works(pool)
    assert pool.counters.crashes == 1


def test_an_error_of_the_function_is_passed_on_and_the_worker_lives(pool: WorkerPool) -> None:
    with pytest.raises(WorkerError, match="ValueError: of its own accord"):
        pool.call("raise")
    with pytest.raises(WorkerError, match="MemoryError"):
        pool.call("memory")
    assert works(pool)
    assert pool.counters.workers_started == 1


def test_what_the_function_prints_is_no_answer(pool: WorkerPool) -> None:
    assert pool.call("print")[0] == "print"
    assert works(pool)


def test_a_worker_that_cannot_start_says_why() -> None:
    pool = WorkerPool("no_such_module:judge", num_workers=1)
    with pytest.raises(WorkerUnavailable, match="No module named 'no_such_module'"):
        pool.call(1)
    pool.close()


def test_calls_past_their_deadline_do_not_delay_or_mix_up_their_neighbours() -> None:
    pool = WorkerPool(MISBEHAVE, num_workers=2, deadline_seconds=0.4)

    async def one(index: int) -> object:
        try:
            return (await pool.acall("loop" if index % 20 == 7 else "fine", index))[1]
        except DeadlineExceeded:
            return "late"

    async def everything() -> list[object]:
        return list(await asyncio.gather(*map(one, range(60))))

    assert asyncio.run(everything()) == ["late" if index % 20 == 7 else index for index in range(60)]
    pool.close()


def test_one_pool_serves_threads_and_several_event_loops() -> None:
    pool = WorkerPool(DOUBLE, num_workers=2)
    results: dict[int, object] = {}

    def in_a_loop_of_its_own(index: int) -> None:
        results[index] = asyncio.run(pool.acall(index))

    threads = [threading.Thread(target=in_a_loop_of_its_own, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: 2 * index for index in range(6)}
    pool.close()


def _in_a_daemon(queue: multiprocessing.Queue[object]) -> None:
    queue.put(shared_pool(DOUBLE, num_workers=1).call(21))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_it_works_in_daemonic_processes_and_after_a_fork(method: str) -> None:
    # Ray's actors and pools of processes are daemonic: they may not have multiprocessing children.
    assert shared_pool(DOUBLE, num_workers=1).call(4) == 8
    context = multiprocessing.get_context(method)
    queue: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=_in_a_daemon, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=60) == 42
    process.join()
    assert shared_pool(DOUBLE, num_workers=1).call(5) == 10


def _is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _ends(process: int) -> bool:
    until = time.monotonic() + 20
    while _is_running(process) and time.monotonic() < until:
        time.sleep(0.05)
    return not _is_running(process)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_worker_outlives_its_pool_or_a_parent_that_is_killed(pool: WorkerPool) -> None:
    worker = pool.call("fine")[2]
    pool.close()
    assert _ends(worker)
    code = (
        "import time\nfrom verifiers.workers import WorkerPool\n"
        # In a variable: a pool that nobody holds may end its worker before it is looked for.
        f"pool = WorkerPool({MISBEHAVE!r}, num_workers=1, deadline_seconds=60)\n"
        "print(pool.call('fine')[2], flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert _is_running(worker)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert _ends(worker)


@pytest.mark.parametrize("settings", [{"num_workers": 0}, {"deadline_seconds": 0}, {"deadline_seconds": float("nan")}])
def test_a_pool_that_makes_no_sense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is not"):
        WorkerPool(DOUBLE, **settings)  # type: ignore[arg-type]
