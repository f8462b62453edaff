"""The seam between those who need a program run and those who can run it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sandbox.types import Execution, Program


@runtime_checkable
class Sandbox(Protocol):
    """Runs untrusted programs."""

    async def run(self, program: Program) -> Execution:
        """Run one program to its end or its limit.

        Raises: SandboxUnavailable: the infrastructure failed; says nothing about the program.
        """
        ...
