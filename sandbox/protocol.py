"""The seam between those who need a program run and those who can run it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sandbox.types import Answers, Entry, Examination, Execution, Program


@runtime_checkable
class Sandbox(Protocol):
    """Runs untrusted programs."""

    def prepare(self) -> None:
        """Do what takes long, such as building an image, before anybody waits for a program. Blocks; may be left out.

        Raises: SandboxUnavailable: it cannot be done now; the first program tries again.
        """
        ...

    async def run(self, program: Program) -> Execution:
        """Run one program to its end or its limit.

        Raises: SandboxUnavailable: the infrastructure failed; says nothing about the program.
        """
        ...

    async def ask(self, entry: Entry, *, quiet_seconds: float, report_bytes: int) -> Answers:
        """Run one function and return what it reports, until it ends, its time is over or nothing came for `quiet_seconds`.

        Raises: SandboxUnavailable: as above.
        """
        ...

    async def examine(self, examined: Entry, examiner: Entry) -> Examination:
        """Run two programs joined by a socket, each as a user of its own, until the examiner ends or its time is over.

        Raises: SandboxUnavailable: as above.
        """
        ...
