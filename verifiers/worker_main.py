"""The program a worker process runs: import one function, say ready, then answer one line of JSON with another until standard input ends.

Run by `verifiers.workers` as `python -m verifiers.worker_main package.module:name MEMORY_MIB`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from typing import IO, Any

PR_SET_PDEATHSIG = 1


def main(function_path: str, memory_mib: int) -> None:
    """Serve calls of the function; what it prints goes to standard error, never between the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _die_with_parent()
    module, _, name = function_path.partition(":")
    function = getattr(importlib.import_module(module), name)
    _limit_memory(memory_mib)
    _write(answers, {"ready": True})
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"value": function(*json.loads(line))}
        except MemoryError:
            reply = {"error": "MemoryError: the worker's memory limit"}
        except Exception as error:  # Boundary: whatever the function raises is told to the caller.
            reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
        _write(answers, reply)


def _write(answers: IO[str], reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def _die_with_parent() -> None:
    """On Linux the kernel kills this process when its parent dies; elsewhere the end of standard input has to do."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(memory_mib: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
