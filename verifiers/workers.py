"""Worker processes that can be killed: the only way to end a computation that does not end by itself.

`signal.alarm` works in the main thread only and does not interrupt C code; a thread cannot be killed. A process can, from any thread, event
loop, daemonic child or distributed rank. Workers are started anew (no fork: it is unsafe where threads run) and speak lines of JSON.

PR_SET_PDEATHSIG fires when the *thread* that started a worker ends, so workers are started by one thread that lives as long as the pool.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from verifiers.errors import VerifierError

CALLS_PER_WORKER = 1000
"""After so many calls a worker is replaced, so that what a library caches does not grow for ever."""
START_SECONDS = 60.0
ROOT = Path(__file__).resolve().parent.parent


class DeadlineExceeded(VerifierError):
    """A call passed its deadline; its worker was killed."""


class WorkerCrashed(VerifierError):
    """A worker ended in the middle of a call."""


class WorkerUnavailable(VerifierError):
    """A worker could not start: nothing the call did."""


class WorkerError(VerifierError):
    """The function raised an error."""


@dataclass(slots=True)
class Counters:
    """What a pool has done so far."""

    calls: int = 0
    deadlines_passed: int = 0
    crashes: int = 0
    workers_started: int = 0


class WorkerPool:
    """`num_workers` processes that serve one function of JSON values, each call with a hard deadline.

    `function` is a path `package.module:name`. Calls wait in turn for a free worker; waiting does not count towards the deadline, nor
    does the start of a worker, its imports included. Past the deadline the worker is killed and replaced. `memory_mib` bounds the address
    space of each.
    """

    def __init__(self, function: str, *, num_workers: int = 2, deadline_seconds: float = 2.0, memory_mib: int = 2048) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers={num_workers} is not at least 1")
        if not deadline_seconds > 0:
            raise ValueError(f"deadline_seconds={deadline_seconds} is not more than 0")
        self.function, self.num_workers, self.deadline_seconds, self.memory_mib = function, num_workers, deadline_seconds, memory_mib
        self.counters = Counters()
        self._closed = False
        self._idle: queue.Queue[_Worker | None] = queue.Queue()
        for _ in range(num_workers):
            self._idle.put(None)  # A place for a worker that is not started yet.
        self._callers = ThreadPoolExecutor(num_workers, thread_name_prefix="rlvr-worker-call")
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="rlvr-worker-start")
        self._alive: set[_Worker] = set()

    def call(self, *args: Any) -> Any:
        """Return the function's value; may be called from any thread.

        Raises: DeadlineExceeded. WorkerCrashed: killed for memory, or a crash in C code. WorkerError: the function raised.
        WorkerUnavailable: no worker could be started.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        worker = self._idle.get()
        try:
            if worker is None or not worker.usable:
                worker = self._replaced(worker)
            self.counters.calls += 1
            return worker.call(args, self.deadline_seconds)
        except DeadlineExceeded:
            self.counters.deadlines_passed += 1
            raise
        except WorkerCrashed:
            self.counters.crashes += 1
            raise
        finally:
            self._idle.put(worker)

    async def acall(self, *args: Any) -> Any:
        """`call`, from any event loop. A cancelled call runs to its deadline in the background."""
        return await asyncio.wrap_future(self.submit(*args))

    def submit(self, *args: Any) -> Future[Any]:
        """Queue a call and return at once."""
        return self._callers.submit(self.call, *args)

    def close(self) -> None:
        """Kill all workers; calls in progress fail with WorkerCrashed."""
        self._closed = True
        for worker in list(self._alive):
            worker.kill()
        self._callers.shutdown(wait=False, cancel_futures=True)
        self._starter.shutdown(wait=False, cancel_futures=True)

    def _replaced(self, worker: _Worker | None) -> _Worker:
        if worker is not None:
            worker.kill()
            self._alive.discard(worker)
        worker = self._starter.submit(_Worker, self.function, self.memory_mib).result()
        self.counters.workers_started += 1
        self._alive.add(worker)
        if self._closed:
            worker.kill()
        return worker


class _Worker:
    """One process and its two pipes."""

    def __init__(self, function: str, memory_mib: int) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._function = function
        self._calls = 0
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verifiers.worker_main", function, str(memory_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        )
        self.usable = True
        try:
            self._read_line(time.monotonic() + START_SECONDS)
        except DeadlineExceeded:
            self.kill()
            raise WorkerUnavailable(f"the worker for {function} did not start within {START_SECONDS:g} s") from None
        except WorkerCrashed as error:
            raise WorkerUnavailable(f"the worker for {function} cannot start: {self._last_words() or error}") from error

    def call(self, args: tuple[Any, ...], deadline_seconds: float) -> Any:
        self._calls += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(args).encode() + b"\n")
            self._process.stdin.flush()
            reply = json.loads(self._read_line(time.monotonic() + deadline_seconds))
        except (BrokenPipeError, ValueError) as error:
            self.kill()
            raise WorkerCrashed(f"the worker for {self._function} is gone: {self._last_words() or error}") from error
        except DeadlineExceeded:
            self.kill()
            raise DeadlineExceeded(f"{self._function} was stopped after {deadline_seconds:g} s") from None
        if self._calls >= CALLS_PER_WORKER:
            self.kill()
        if "error" in reply:
            raise WorkerError(f"{self._function}: {reply['error']}")
        return reply["value"]

    def kill(self) -> None:
        self.usable = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _close(pipe)

    def _read_line(self, until: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                remaining = until - time.monotonic()
                if remaining <= 0 or not selector.select(remaining):
                    raise DeadlineExceeded
                piece = os.read(stdout.fileno(), 1 << 16)
                if not piece:
                    self.kill()
                    raise WorkerCrashed(f"the worker for {self._function} ended: {self._last_words() or 'without a word'}")
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, self._errors.tell() - 2000))
            return self._errors.read().decode(errors="replace").strip()[-600:]
        return ""


def _close(pipe: IO[bytes] | None) -> None:
    with contextlib.suppress(OSError, ValueError):
        if pipe is not None:
            pipe.close()


_pools: dict[tuple[object, ...], WorkerPool] = {}
_lock = threading.Lock()


def shared_pool(function: str, *, num_workers: int = 2, deadline_seconds: float = 2.0, memory_mib: int = 2048) -> WorkerPool:
    """Return this process's pool with these settings; a forked child gets its own. It is closed when the process ends."""
    key = (os.getpid(), function, num_workers, deadline_seconds, memory_mib)
    with _lock:
        if key not in _pools:
            _pools[key] = WorkerPool(function, num_workers=num_workers, deadline_seconds=deadline_seconds, memory_mib=memory_mib)
        return _pools[key]


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()  # The parent's may be held by a thread that the child does not have.


def _close_all() -> None:
    for (process, *_), pool in _pools.items():
        if process == os.getpid():
            pool.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
