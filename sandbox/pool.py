"""A pool of warm places where programs run: queue, retry, healing. What a place is (a container, a process) is its worker's business.

Every worker is served by one thread, so jobs may be submitted from any thread and any event loop. A job whose worker is lost goes to
another; one that loses three in a row did that itself, and is reported as killed.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox.errors import SandboxUnavailable
from sandbox.inside.wire import encode_frame

PING = encode_frame({"ping": True})
MAX_LOSSES = 3
HEARTBEAT_SECONDS = 60.0
MAX_PAUSE_SECONDS = 5.0


class WorkerLost(Exception):
    """A worker is gone or no longer answers. `for_memory`: the kernel killed it for memory."""

    def __init__(self, message: str, *, for_memory: bool = False) -> None:
        super().__init__(message)
        self.for_memory = for_memory


@dataclass(frozen=True, slots=True)
class Answer:
    """A runner's answer to one job, and the streams that came with it."""

    header: Mapping[str, Any]
    blobs: list[bytes]


class Worker(Protocol):
    """One warm place where jobs run, one at a time."""

    def start(self) -> None:
        """Make it ready. Raises: SandboxUnavailable."""
        ...

    def exchange(self, frame: bytes, timeout_seconds: float) -> Answer:
        """Send a job and wait for its answer. Raises: WorkerLost."""
        ...

    def close(self) -> None:
        """Remove it and all that runs in it, perhaps while `exchange` waits in another thread; never raises."""
        ...


@dataclass(slots=True)
class Counters:
    """What a pool has done so far."""

    jobs: int = 0
    retries: int = 0
    workers_started: int = 0
    workers_lost: int = 0
    workers_recycled: int = 0


@dataclass(slots=True)
class _Job:
    frame: bytes
    timeout_seconds: float
    future: Future[Answer]
    losses: list[WorkerLost] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


class Pool:
    """`num_workers` warm workers made by `make_worker(index, attempt)`; `attempt` counts the starts that failed in a row.

    `jobs_per_worker`: after so many a worker is replaced. `patience_seconds`: how long jobs wait for workers that do not start before they
    fail with SandboxUnavailable.
    """

    def __init__(
        self, make_worker: Callable[[int, int], Worker], *, num_workers: int, jobs_per_worker: int = 500, patience_seconds: float = 60.0
    ) -> None:
        self._make_worker = make_worker
        self.num_workers, self.jobs_per_worker, self.patience_seconds = num_workers, jobs_per_worker, patience_seconds
        self.counters = Counters()
        self._forget()
        atexit.register(self.close)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._threads: list[threading.Thread] = []
        self._workers: dict[int, Worker] = {}
        self._closed = False
        self._gave_up = False

    def submit(self, frame: bytes, timeout_seconds: float) -> Future[Answer]:
        """Queue a job; `timeout_seconds` bounds its run, not its waiting. The future may raise SandboxUnavailable."""
        if self._pid != os.getpid():
            self._forget()  # After a fork: threads and workers stayed with the parent.
        job = _Job(frame, timeout_seconds, Future())
        with self._condition:
            if self._closed:
                raise SandboxUnavailable("the sandbox is closed")
            self._jobs.append(job)
            self._condition.notify()
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._serve, args=(index,), name=f"rlvr-sandbox-{index}", daemon=True)
                    for index in range(self.num_workers)
                ]
                for thread in self._threads:
                    thread.start()
        return job.future

    def close(self) -> None:
        """Remove all workers; jobs that wait or run fail with SandboxUnavailable."""
        if self._pid != os.getpid() or self._closed:
            return
        with self._condition:
            self._closed = True
            waiting, self._jobs = list(self._jobs), deque()
            self._condition.notify_all()
        for job in waiting:
            _fail(job, SandboxUnavailable("the sandbox was closed"))
        for index in list(self._workers):
            self._drop(index)
        for thread in self._threads:
            thread.join(timeout=10.0)
        atexit.unregister(self.close)

    # What each thread does.

    def _serve(self, index: int) -> None:
        served = 0
        while (job := self._next_job(index)) is not None:
            if not job.losses and not job.troubles and not job.future.set_running_or_notify_cancel():
                continue  # Cancelled while it waited.
            try:
                worker = self._workers.get(index)
                if worker is None:
                    worker, served = self._start_worker(index), 0
                served += 1
                self._run(index, worker, job, last=served >= self.jobs_per_worker)
            except SandboxUnavailable as error:
                _fail(job, error)
            except Exception as error:  # Boundary to the engine: whatever it raises, no job may wait for ever.
                self._drop(index)
                _fail(job, SandboxUnavailable(f"the sandbox failed: {error!r}"))
        self._drop(index)

    def _next_job(self, index: int) -> _Job | None:
        while True:
            with self._condition:
                if not self._jobs and not self._closed:
                    self._condition.wait(HEARTBEAT_SECONDS)
                if self._closed:
                    return None
                if self._jobs:
                    return self._jobs.popleft()
            self._heartbeat(index)

    def _heartbeat(self, index: int) -> None:
        """A worker that hears nothing for long takes its host for dead; one that died while idle is noticed here."""
        worker = self._workers.get(index)
        if worker is not None:
            try:
                worker.exchange(PING, timeout_seconds=20.0)
            except WorkerLost:
                self.counters.workers_lost += 1
                self._drop(index)

    def _start_worker(self, index: int) -> Worker:
        # Once waiting was in vain, the jobs behind do not wait as long again each.
        deadline, pause = time.monotonic() + (0.0 if self._gave_up else self.patience_seconds), 0.2
        for attempt in itertools.count():
            worker = self._make_worker(index, attempt)
            try:
                worker.start()
            except SandboxUnavailable:
                worker.close()
                if time.monotonic() + pause > deadline or self._closed:
                    self._gave_up = True
                    raise
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
                continue
            self._gave_up = False
            self._workers[index] = worker
            self.counters.workers_started += 1
            if self._closed:
                self._drop(index)
                raise SandboxUnavailable("the sandbox was closed")
            return worker
        raise AssertionError("counting does not end")

    def _run(self, index: int, worker: Worker, job: _Job, *, last: bool) -> None:
        try:
            answer = worker.exchange(job.frame, job.timeout_seconds)
        except WorkerLost as loss:
            self.counters.workers_lost += 1
            self._drop(index)
            job.losses.append(loss)
            self._retry_or_give_up(job)
            return
        trouble = answer.header["trouble"]
        if trouble:
            job.troubles.append(trouble)
            self._retry_or_give_up(job)
        else:
            self.counters.jobs += 1
            job.future.set_result(answer)
        if trouble or last or not answer.header["clean"]:
            self.counters.workers_recycled += 1
            self._drop(index)

    def _retry_or_give_up(self, job: _Job) -> None:
        if self._closed:
            _fail(job, SandboxUnavailable("the sandbox was closed"))
        elif len(job.troubles) >= MAX_LOSSES:
            _fail(job, SandboxUnavailable(f"programs cannot be started: {job.troubles[-1]}; is the machine's disk or process table full?"))
        elif len(job.losses) >= MAX_LOSSES:
            job.future.set_exception(job.losses[-1])
        else:
            self.counters.retries += 1
            with self._condition:
                self._jobs.appendleft(job)
                self._condition.notify()

    def _drop(self, index: int) -> None:
        worker = self._workers.pop(index, None)  # Whoever takes it out closes it, once.
        if worker is not None:
            worker.close()


def _fail(job: _Job, error: SandboxUnavailable) -> None:
    if not job.future.done():
        job.future.set_exception(error)
