"""Turns programs into the frames a runner understands, and its answers into executions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from sandbox.inside.wire import encode_frame
from sandbox.pool import Answer, WorkerLost
from sandbox.types import Answers, Entry, Examination, Execution, Limits, Program

REPORT_BYTES = 4 << 20
GRACE_SECONDS = 20.0
"""On top of a job's own time: starting, killing, cleaning up on a loaded machine. Past it the worker counts as lost."""
EXAMINED_OOM_SCORE, EXAMINER_OOM_SCORE = 1000, 800
"""When memory runs out the examined program goes first, and any program before the runner (0)."""
MAX_FILES_OPEN = 256

INSIDE = ("wire", "child", "zygote", "job", "remains", "runner")
STANDARD_PRELOAD = (
    "typing re math collections itertools functools heapq bisect string random json datetime decimal fractions statistics copy operator io "
    "traceback dataclasses enum abc numbers cmath hashlib textwrap time calendar contextlib types array struct queue"
).split()
"""What programs commonly import, imported once."""

_ids = itertools.count(1)


@cache
def boot_command() -> str:
    """The Python source a runner's interpreter is started with."""
    return (resources.files("sandbox.inside") / "boot.py").read_text("utf-8")


def boot_message(
    *, isolate: bool, roots: tuple[str, str], idle_seconds: float, modules: Mapping[str, str], preload: Sequence[str]
) -> bytes:
    """What is sent to it first: its modules, and those of the sandbox's user, which the zygote imports along with `preload`."""
    sources = [[name, source] for name, source in _inside()]
    sources += [[name, source] for name, source in modules.items()]  # In order: each may import those before it.
    settings = {"isolate": isolate, "roots": roots, "idle_seconds": idle_seconds, "preload": [*STANDARD_PRELOAD, *preload]}
    message = json.dumps({"modules": sources, "settings": settings}).encode("ascii")
    return len(message).to_bytes(4, "big") + message


@cache
def _inside() -> tuple[tuple[str, str], ...]:
    """The runner's modules, read once: a package that is replaced while a run goes on must not mix two versions."""
    folder = resources.files("sandbox.inside")
    return tuple((f"rlvr_{name}", (folder / f"{name}.py").read_text("utf-8")) for name in INSIDE)


def run_frame(program: Program, work_mib: int) -> tuple[bytes, float]:
    """The frame that runs one program, and the seconds after which its worker counts as lost."""
    limits = program.limits
    payload = json.dumps({"source": program.source, "files": program.files}).encode("ascii")
    blobs = [program.stdin.encode("utf-8", "surrogateescape"), payload]
    return _frame(limits.wall_seconds, [_spec(limits, work_mib, EXAMINED_OOM_SCORE, stop_at_output_limit=True)], blobs)


def ask_frame(entry: Entry, quiet_seconds: float, report_bytes: int, work_mib: int) -> tuple[bytes, float]:
    """The frame that runs one function with a report, and the seconds after which its worker counts as lost."""
    specs = [_spec(entry.limits, work_mib, EXAMINED_OOM_SCORE, stop_at_output_limit=False)]
    return _frame(entry.limits.wall_seconds, specs, _blobs(entry), quiet_seconds=quiet_seconds, report_bytes=report_bytes)


def examine_frame(examined: Entry, examiner: Entry, work_mib: int) -> tuple[bytes, float]:
    """The frame that runs two programs, and the seconds after which their worker counts as lost."""
    specs = [
        _spec(examined.limits, work_mib, EXAMINED_OOM_SCORE, stop_at_output_limit=False),
        _spec(examiner.limits, work_mib, EXAMINER_OOM_SCORE, stop_at_output_limit=False),
    ]
    return _frame(examiner.limits.wall_seconds, specs, _blobs(examined) + _blobs(examiner), report_bytes=REPORT_BYTES)


def _frame(
    wall_seconds: float, specs: list[dict[str, Any]], blobs: list[bytes], *, quiet_seconds: float | None = None, report_bytes: int = 0
) -> tuple[bytes, float]:
    header = {
        "id": next(_ids),
        "wall_seconds": wall_seconds,
        "quiet_seconds": quiet_seconds,
        "report_bytes": report_bytes,
        "programs": specs,
    }
    return encode_frame(header, blobs), wall_seconds + GRACE_SECONDS


def executions(answer: Answer) -> list[Execution]:
    """How each program of a job ended."""
    return [
        Execution(
            status=program["status"],
            exit_code=program["exit_code"],
            stdout=answer.blobs[2 * index].decode("utf-8", "replace"),
            stderr=answer.blobs[2 * index + 1].decode("utf-8", "replace"),
            wall_seconds=program["wall_seconds"],
            peak_memory_mib=program["peak_memory_mib"] or None,
        )
        for index, program in enumerate(answer.header["programs"])
    ]


def answers(answer: Answer) -> Answers:
    """The report of a function that ran alone, and how it ended."""
    return Answers(answer.blobs[-1].decode("utf-8", "replace"), executions(answer)[0])


def examination(answer: Answer) -> Examination:
    """The examiner's report, and how both programs ended."""
    examined, examiner = executions(answer)
    return Examination(answer.blobs[-1].decode("utf-8", "replace"), examined, examiner)


def lost_execution(loss: WorkerLost, limits: Limits) -> Execution:
    """How a program ended that took three workers down with it."""
    status = "memory" if loss.for_memory else "killed"
    return Execution(status, None, "", f"the sandbox it ran in was lost three times: {loss}", limits.wall_seconds)


def _blobs(entry: Entry) -> list[bytes]:
    """Standard input, of which a function has none, and what it is called with."""
    return [b"", json.dumps({"function": entry.function, "argument": entry.argument, "files": entry.files}).encode("ascii")]


def _spec(limits: Limits, work_mib: int, oom_score_adj: int, *, stop_at_output_limit: bool) -> dict[str, Any]:
    # CPU time is bounded as well, for the case that the runner is held up; threads share it.
    cpu_seconds = math.ceil(limits.wall_seconds * max(1, limits.num_processes)) + 1
    return {
        "memory_bytes": limits.memory_mib << 20,
        "output_bytes": limits.output_kib << 10,
        "stop_at_output_limit": stop_at_output_limit,
        "oom_score_adj": oom_score_adj,
        "limits": [
            ["RLIMIT_NPROC", limits.num_processes],
            ["RLIMIT_NOFILE", MAX_FILES_OPEN],
            ["RLIMIT_FSIZE", work_mib << 20],
            ["RLIMIT_CORE", 0],
            ["RLIMIT_CPU", cpu_seconds],
        ],
    }
