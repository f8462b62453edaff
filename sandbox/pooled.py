"""What every sandbox over a pool of runners has in common: programs in, executions out."""

from __future__ import annotations

import asyncio
from typing import Self

from sandbox.framing import answers, ask_frame, examination, examine_frame, executions, lost_execution, run_frame
from sandbox.pool import Answer, Counters, Pool, WorkerLost
from sandbox.types import Answers, Entry, Examination, Execution, Program


class PooledSandbox:
    """Runs programs on the workers of a pool; may be used from any thread and any event loop."""

    def __init__(self, pool: Pool, work_mib: int) -> None:
        self._pool, self._work_mib = pool, work_mib

    @property
    def counters(self) -> Counters:
        """What the pool has done so far: jobs, retries, workers started, lost and replaced."""
        return self._pool.counters

    def prepare(self) -> None:
        """Nothing takes long here."""

    async def run(self, program: Program) -> Execution:
        """Run one program. See `Sandbox.run`."""
        self._check(program)
        try:
            return executions(await self._answer(run_frame(program, self._work_mib)))[0]
        except WorkerLost as loss:
            return lost_execution(loss, program.limits)

    async def ask(self, entry: Entry, *, quiet_seconds: float, report_bytes: int) -> Answers:
        """Run one function for its report. See `Sandbox.ask`."""
        self._check(entry)
        try:
            return answers(await self._answer(ask_frame(entry, quiet_seconds, report_bytes, self._work_mib)))
        except WorkerLost as loss:
            return Answers("", lost_execution(loss, entry.limits))

    async def examine(self, examined: Entry, examiner: Entry) -> Examination:
        """Run a program and its examiner. See `Sandbox.examine`."""
        self._check(examined)
        self._check(examiner)
        try:
            return examination(await self._answer(examine_frame(examined, examiner, self._work_mib)))
        except WorkerLost as loss:
            lost = lost_execution(loss, examined.limits)
            return Examination("", lost, lost)

    def close(self) -> None:
        """Remove all workers. Happens at exit by itself; those of a process that was killed end by themselves."""
        self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.close)

    async def _answer(self, frame_and_timeout: tuple[bytes, float]) -> Answer:
        return await asyncio.wrap_future(self._pool.submit(*frame_and_timeout))

    def _check(self, program: Program | Entry) -> None:
        """Raise ValueError where a program asks for more than the sandbox has."""
