"""What a sandbox is asked to run and what it reports back.

Standard library only; knows nothing of models, rewards or verifiers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ExecutionStatus = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use before it is killed."""

    wall_seconds: float = 10.0
    memory_mib: int = 512
    output_kib: int = 1024
    num_processes: int = 32


@dataclass(frozen=True, slots=True)
class Program:
    """Source text with its input; `files` are placed beside it in the work folder."""

    source: str
    stdin: str = ""
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
