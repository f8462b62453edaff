"""What a sandbox is asked to run and what it reports back.

Standard library only; knows nothing of models, rewards or verifiers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ExecutionStatus = Literal["ok", "error", "timeout", "memory", "output", "killed"]
"""How a program ended: exit status 0, another exit status, past its time, out of memory, wrote too much, killed by a signal."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use before it is killed. The sandbox itself has limits that no program can raise; see `DockerSandbox`."""

    wall_seconds: float = 10.0
    memory_mib: int = 512
    output_kib: int = 1024
    num_processes: int = 32


@dataclass(frozen=True, slots=True)
class Program:
    """Source text of a Python program with its input; `files` are placed beside it in the work folder.

    Raw bytes that are no UTF-8 stand in `source` as lone surrogates (`errors="surrogateescape"`).
    """

    source: str
    stdin: str = ""
    files: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Entry:
    """A function `module:name` of a module the sandbox was given, called as `name(argument, channel, report)`.

    `channel` is the descriptor of a socket to the other program, `report` that of a pipe to the caller. Alone a function has no channel; of
    two the examined one has no report.
    """

    function: str
    argument: str
    files: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Execution:
    """How a program ended. `exit_code` is None when it was killed before it exited."""

    status: ExecutionStatus
    exit_code: int | None
    stdout: str
    stderr: str
    wall_seconds: float
    peak_memory_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What a function that ran alone reported, in its own words, and how it ended."""

    report: str
    execution: Execution


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of one program examining another: the examiner's report, and how both ended.

    The examined program has no access to the report. Its own status is `ok` also where it still waited for calls at the end.
    """

    report: str
    examined: Execution
    examiner: Execution
