"""A Python tool: programs that the policy writes run in a sandbox, and it reads what they print."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from rlvr.environments.protocol import Turn
from rlvr.errors import EnvironmentFailed
from sandbox.errors import SandboxUnavailable
from sandbox.types import Execution, Limits, Program
from verifiers.registry import SANDBOXES
from verifiers.types import Message, Problem

INSTRUCTIONS = (
    "You can run Python. End a message with a program in a ```python block and what it prints is shown to you; "
    "a message that does not end with one is your answer."
)
CALL = re.compile(r"```python\s*\n(.*?)```\s*\Z", re.DOTALL)
ENDINGS = {"timeout": "it ran out of time", "memory": "it ran out of memory", "output": "it printed too much", "killed": "it was killed"}


class PythonTool:
    """Runs the program at the end of a reply, in a fresh process of the sandbox, and shows what it printed."""

    def __init__(
        self,
        sandbox: str = "docker",
        sandbox_options: Mapping[str, Any] | None = None,
        instructions: str | None = INSTRUCTIONS,
        role: Literal["user", "tool"] = "user",
        wall_seconds: float = 5.0,
        max_characters: int = 2000,
    ) -> None:
        """`instructions`: put before the first message as the system's; None where the model knows the tool. `role`: whose message the
        output is; every chat template knows a user, not every one a tool. `max_characters`: longer output is cut in the middle."""
        self._sandbox = SANDBOXES.get(sandbox)(**(sandbox_options or {}))
        with suppress(SandboxUnavailable):  # It may be there when the first program runs; until then nobody waits for an image to be built.
            self._sandbox.prepare()
        self._instructions = instructions
        self._role = role
        self._limits = replace(Limits(), wall_seconds=wall_seconds)
        self._max_characters = max_characters

    async def reset(self, problem: Problem) -> tuple[Message, ...]:
        """See `Environment.reset`; an own system message of the problem keeps its place and the instructions follow it."""
        if self._instructions is None:
            return problem.messages
        first, *rest = problem.messages
        if first["role"] == "system":
            return ({"role": "system", "content": f"{first['content']}\n\n{self._instructions}"}, *rest)
        return ({"role": "system", "content": self._instructions}, first, *rest)

    async def step(self, problem: Problem, messages: Sequence[Message]) -> Turn:
        """See `Environment.step`."""
        call = CALL.search(messages[-1]["content"])
        if call is None:
            return Turn(done=True)
        try:
            execution = await self._sandbox.run(Program(call[1], limits=self._limits))
        except SandboxUnavailable as error:
            raise EnvironmentFailed(f"the Python tool's sandbox failed: {error}") from error
        return Turn(({"role": self._role, "content": f"```output\n{self._shown(execution)}\n```"},))

    def _shown(self, execution: Execution) -> str:
        """What it printed, then how it failed: the last line of a traceback says most."""
        parts = [execution.stdout.rstrip("\n")]
        if execution.status == "error":
            parts.append(execution.stderr.rstrip("\n").rpartition("\n")[2])
        elif execution.status != "ok":
            parts.append(ENDINGS[execution.status])
        text = "\n".join(part for part in parts if part)
        if len(text) > self._max_characters:
            half = self._max_characters // 2
            text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
        return text
