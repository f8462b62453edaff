"""`LocalSandbox`: the same runner without a container. Not a sandbox against anybody who means harm."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from sandbox.errors import SandboxUnavailable
from sandbox.framing import boot_command, boot_message
from sandbox.inside import wire
from sandbox.pool import Answer, Pool, WorkerLost
from sandbox.pooled import PooledSandbox

NOT_COVERED = (
    "programs run as your own user on this machine: they can read and change your files, use the network, signal your processes, "
    "and see each other; only time, memory, processes and output are limited"
)
WORK_MIB = 64
START_SECONDS = 60.0


class LocalSandbox(PooledSandbox):
    """Runs programs on this machine under resource limits only; refuses to start without `allow_unsafe=True`.

    For development on a machine without Docker, with programs you trust. The options are those of `DockerSandbox`.
    """

    def __init__(
        self,
        *,
        allow_unsafe: bool = False,
        num_workers: int | None = None,
        modules: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        patience_seconds: float = 10.0,
    ) -> None:
        if not allow_unsafe:
            raise ValueError(f"the sandbox 'local' does not contain programs: {NOT_COVERED}. Use 'docker', or say allow_unsafe=true")
        given, imported = dict(modules or {}), (*(modules or {}), *preload)
        pool = Pool(
            lambda index, attempt: _LocalRunner(given, imported),
            num_workers=(os.cpu_count() or 1) if num_workers is None else num_workers,
            patience_seconds=patience_seconds,
        )
        super().__init__(pool, WORK_MIB)


class _LocalRunner:
    """A runner as a child of this process, its work folders below a temporary one."""

    def __init__(self, modules: Mapping[str, str], preload: Sequence[str]) -> None:
        self._modules, self._preload = modules, preload
        self._process: subprocess.Popen[bytes] | None = None
        self._root: str | None = None

    def start(self) -> None:
        self._root = tempfile.mkdtemp(prefix="rlvr-local-")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-B", "-c", boot_command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": os.environ.get("PATH", ""), "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
                bufsize=0,
            )
            message = boot_message(
                isolate=False, roots=(self._root, self._root), idle_seconds=600.0, modules=self._modules, preload=self._preload
            )
            self.exchange(message, START_SECONDS)
        except (OSError, WorkerLost) as error:
            raise SandboxUnavailable(f"the local runner did not start: {error}") from error

    def exchange(self, frame: bytes, timeout_seconds: float) -> Answer:
        process, deadline = self._process, time.monotonic() + timeout_seconds
        if process is None:
            raise WorkerLost("the runner was closed")
        try:
            wire.write_all(process.stdin.fileno(), frame)
            return Answer(*wire.read_frame(lambda count: _read(process, count, deadline)))
        except (OSError, wire.Closed, ValueError) as error:
            raise WorkerLost(str(error)) from error

    def close(self) -> None:
        process, root = self._process, self._root
        self._process = self._root = None
        if process is not None:
            process.stdin.close()  # The runner ends what it started and then itself.
            try:
                process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)


def _read(process: subprocess.Popen[bytes], count: int, deadline: float) -> bytes:
    parts = []
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while count:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError("no answer in time")
            part = os.read(process.stdout.fileno(), min(count, 1 << 20))
            if not part:
                raise wire.Closed("the runner is gone")
            parts.append(part)
            count -= len(part)
    return b"".join(parts)
