"""`DockerSandbox`: programs run in warm, hardened containers of the user's own Docker engine."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sandbox.docker_engine import as_unavailable, connect, has_image
from sandbox.errors import SandboxUnavailable
from sandbox.framing import boot_command, boot_message
from sandbox.image.build import ensure_image
from sandbox.inside import wire
from sandbox.pool import Answer, Pool, WorkerLost
from sandbox.pooled import PooledSandbox
from sandbox.types import Entry, Program

if TYPE_CHECKING:
    from docker import APIClient

LABEL = "io.rlvr.sandbox"
"""On every container; its value tells the process it belongs to, so that those of a process that is gone can be found."""
ROOT, EXAMINER_ROOT = "/tmp", "/var/tmp"
"""Where programs and examiners have their folders: apart, so that a program cannot fill the disk its examiner needs."""
EXAMINER_MIB = 16
CAPABILITIES = ["SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE"]
"""Of the runner alone, to give each job a user of its own and to clean up after it. Programs have none."""
MAX_PROCESSES = 128
"""Of a container. A program's own limit must be well below it: the runner has to fork even next to a fork bomb."""
IDLE_SECONDS = 600.0
START_SECONDS = 60.0
RUNNER_MIB = 96

Isolation = Literal["pool", "job"]


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """How a container is made: its image, docker-py's `host_config` for it, and what its runner is sent first."""

    image: str
    host_config: Mapping[str, Any]
    boot_message: bytes


class DockerSandbox(PooledSandbox):
    """Runs programs in hardened Docker containers that stay warm.

    No network, a read-only root, one small tmpfs to write to, every capability dropped, no new privileges, a seccomp filter, and limits
    for memory, processes, output and time. Each program is forked from an interpreter that has its imports behind it, under a user id used
    once; when it ends, what it started is killed and what it wrote is gone. What that covers, and what not: docs/sandbox.md.

    Args:
        num_workers: containers, and so programs at a time; by default one for each core.
        isolation: `pool` keeps containers warm; `job` gives every program a container of its own, started anew: slower by a factor of 30.
        memory_mib, work_mib: of one container: for programs, for the files they write.
        cpus: cores a container may use; by default no limit.
        hosts: engines to spread the containers over (`unix://`, `tcp://`, `ssh://`); by default the user's own, see `engine_url`.
        image: an image with Python 3.10 or newer; by default the one `rlvr sandbox build` makes, built at first use where it is missing.
        runtime: another OCI runtime the engine knows, such as `runsc`.
        jobs_per_container: after so many programs a container is replaced.
        modules: source texts by module name, importable in every program, imported once.
        preload: modules of the image to import once, such as `numpy`.
        patience_seconds: how long programs wait for an engine that does not answer before SandboxUnavailable.
    """

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        isolation: Isolation = "pool",
        memory_mib: int = 1024,
        work_mib: int = 64,
        cpus: float | None = None,
        hosts: Sequence[str] = (),
        image: str | None = None,
        runtime: str | None = None,
        jobs_per_container: int = 500,
        modules: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        patience_seconds: float = 120.0,
    ) -> None:
        num_workers = _num_cores() if num_workers is None else num_workers
        for name, value in (
            ("num_workers", num_workers),
            ("memory_mib", memory_mib),
            ("work_mib", work_mib),
            ("jobs_per_container", jobs_per_container),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} is not a whole number of at least 1")
        if isolation not in ("pool", "job"):
            raise ValueError(f"isolation={isolation!r} is neither 'pool' nor 'job'")
        self.memory_mib, self.work_mib, self.cpus, self.runtime = memory_mib, work_mib, cpus, runtime
        self._hosts = tuple(hosts) or (None,)
        self._image = image
        self._modules, self._preload = dict(modules or {}), tuple(preload)
        self._prepared: dict[str | None, str] = {}
        self._preparing = threading.Lock()
        jobs_per_worker = 1 if isolation == "job" else jobs_per_container
        pool = Pool(self._container, num_workers=num_workers, jobs_per_worker=jobs_per_worker, patience_seconds=patience_seconds)
        super().__init__(pool, work_mib)

    def prepare(self) -> None:
        """Build the image where an engine lacks it. See `Sandbox.prepare`."""
        for host in dict.fromkeys(self._hosts):
            client = connect(host)
            try:
                self.plan(client, host)
            finally:
                client.close()

    def _check(self, program: Program | Entry) -> None:
        if program.limits.memory_mib > self.memory_mib:
            raise ValueError(
                f"limits.memory_mib={program.limits.memory_mib} is more than the container's {self.memory_mib}: "
                f"give the sandbox memory_mib={program.limits.memory_mib}"
            )
        if program.limits.num_processes > MAX_PROCESSES // 2:
            raise ValueError(
                f"limits.num_processes={program.limits.num_processes} is more than {MAX_PROCESSES // 2}, half of what a container may have"
            )

    def host_config(self) -> dict[str, Any]:
        """The hardening of each container, as docker-py names it."""
        # A program's memory, the work folder's (a tmpfs is memory) and the runner's. No swap.
        memory = f"{self.memory_mib + self.work_mib + EXAMINER_MIB + RUNNER_MIB}m"
        config: dict[str, Any] = {
            "auto_remove": True,
            "network_mode": "none",
            "read_only": True,
            "tmpfs": {
                ROOT: f"rw,nosuid,nodev,noexec,size={self.work_mib}m,nr_inodes=16384,mode=0711",
                EXAMINER_ROOT: f"rw,nosuid,nodev,noexec,size={EXAMINER_MIB}m,nr_inodes=4096,mode=0711",
                "/dev/mqueue": "ro,nosuid,nodev,noexec,size=4k,mode=0555",
            },
            "ipc_mode": "none",
            "cap_drop": ["ALL"],
            "cap_add": CAPABILITIES,
            "security_opt": ["no-new-privileges:true", f"seccomp={seccomp_profile()}"],
            "mem_limit": memory,
            "memswap_limit": memory,
            "pids_limit": MAX_PROCESSES,
            # Kept by no log: what programs print comes to the caller alone.
            "log_config": {"type": "none", "config": {}},
            "restart_policy": {"Name": "no"},
        }
        if self.cpus is not None:
            config["nano_cpus"] = int(self.cpus * 1e9)
        if self.runtime is not None:
            config["runtime"] = self.runtime
        return config

    def boot_message(self) -> bytes:
        """What each runner is sent first."""
        preload = (*self._modules, *self._preload)
        return boot_message(isolate=True, roots=(ROOT, EXAMINER_ROOT), idle_seconds=IDLE_SECONDS, modules=self._modules, preload=preload)

    def plan(self, client: APIClient, host: str | None) -> ContainerPlan:
        """See to it, once for each engine, that what others left behind is removed and the image is there; say how a container is made."""
        with self._preparing:
            if host not in self._prepared or not has_image(client, self._prepared[host]):
                remove_orphans(client)
                self._prepared[host] = self._image or ensure_image(client, report=_say_what_takes_long)
        return ContainerPlan(self._prepared[host], self.host_config(), self.boot_message())

    def _container(self, index: int, attempt: int) -> Container:
        # The engines in turn; one that does not answer is passed over for the next.
        return Container(self._hosts[(index + attempt) % len(self._hosts)], self.plan, owner_label())


class Container:
    """One warm container and the connection to the runner in it."""

    def __init__(self, host: str | None, plan: Callable[[APIClient, str | None], ContainerPlan], owner: str) -> None:
        self.host, self.plan, self.owner = host, plan, owner
        self.findings: Mapping[str, Any] = {}
        self.id: str | None = None
        self._client: APIClient | None = None
        self._stream: _Stream | None = None

    def start(self) -> None:
        """Create, start and boot it.

        Raises: SandboxUnavailable.
        """
        self._client = connect(self.host)
        with as_unavailable(f"starting a sandbox container at {self._client.base_url}"):
            plan = self.plan(self._client, self.host)
            created = self._client.create_container(
                plan.image,
                command=["python3", "-s", "-B", "-c", boot_command()],
                stdin_open=True,
                environment={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                labels={LABEL: self.owner},
                working_dir="/",
                entrypoint=[],
                user="0:0",
                network_disabled=plan.host_config["network_mode"] == "none",
                host_config=self._client.create_host_config(**plan.host_config),
            )
            self.id = created["Id"]
            attached = self._client.attach_socket(self.id, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            self._stream = _Stream(attached)
            self._client.start(self.id)
        try:
            self.findings = self.exchange(plan.boot_message, START_SECONDS).header["findings"]
        except WorkerLost as error:
            raise SandboxUnavailable(f"a sandbox container of image {plan.image} started but did not get ready: {error}") from error

    def exchange(self, frame: bytes, timeout_seconds: float) -> Answer:
        """Send a frame and wait for its answer.

        Raises: WorkerLost.
        """
        stream = self._stream
        if stream is None:
            raise WorkerLost("the container was closed")
        try:
            stream.set_deadline(time.monotonic() + timeout_seconds)
            stream.send(frame)
            return Answer(*wire.read_frame(stream.read))
        except (OSError, wire.Closed, ValueError) as error:
            raise WorkerLost(self._why(error), for_memory=self._out_of_memory()) from error

    def close(self) -> None:
        stream, client, container_id = self._stream, self._client, self.id
        self._stream = self._client = self.id = None
        if stream is not None:
            stream.close()
        if client is not None:
            if container_id is not None:
                remove_container(client, container_id)
            client.close()

    def _why(self, error: Exception) -> str:
        stream = self._stream
        said = stream.errors.decode("utf-8", "replace").strip().splitlines() if stream else []
        return f"{error}" + (f"; it said: {said[-1]}" if said else "")

    def _out_of_memory(self) -> bool:
        client, container_id = self._client, self.id
        try:
            with as_unavailable("looking at a container"):
                return bool(client and container_id and client.inspect_container(container_id)["State"].get("OOMKilled"))
        except SandboxUnavailable:
            return False


class _Stream:
    """A container's standard streams over one socket: what is sent is its standard input; the others come in frames, told apart here."""

    def __init__(self, attached: Any) -> None:
        self._attached = attached  # Kept: the connection closes with it.
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        self._output = bytearray()
        self._deadline = 0.0
        self.errors = b""

    def set_deadline(self, deadline: float) -> None:
        self._deadline = deadline

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._socket.settimeout(self._remaining())
            view = view[self._socket.send(view[: 1 << 16]) :]

    def read(self, count: int) -> bytes:
        while len(self._output) < count:
            header = self._receive(8)
            data = self._receive(int.from_bytes(header[4:], "big"))
            if header[0] == 2:
                self.errors = (self.errors + data)[-4096:]
            else:
                self._output += data
        data = bytes(self._output[:count])
        del self._output[:count]
        return data

    def close(self) -> None:
        for closing in (self._socket, self._attached):
            try:
                closing.close()
            except OSError:
                pass

    def _receive(self, count: int) -> bytes:
        parts = []
        while count:
            self._socket.settimeout(self._remaining())
            part = self._socket.recv(min(count, 1 << 20))
            if not part:
                raise wire.Closed("the connection to the container ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        return remaining


def seccomp_profile() -> str:
    """The system calls programs may make: an allow list."""
    return json.dumps(json.loads((resources.files("sandbox.image") / "seccomp.json").read_text("utf-8")))


def owner_label() -> str:
    """Name this process so that another on the same machine can tell whether it still lives."""
    return f"{_machine()}/{os.getpid()}/{_start_time(os.getpid())}"


def remove_orphans(client: APIClient) -> int:
    """Remove containers whose process on this machine is gone; returns how many."""
    removed = 0
    with as_unavailable("listing sandbox containers"):
        for container in client.containers(all=True, filters={"label": LABEL}):
            machine, pid, started = (container["Labels"][LABEL].split("/") + ["", ""])[:3]
            if machine == _machine() and _start_time(int(pid)) != started:
                remove_container(client, container["Id"])
                removed += 1
    return removed


def probe(sandbox: DockerSandbox, host: str | None = None) -> Mapping[str, Any]:
    """Start one container as `sandbox` would, and return what its runner found of its limits.

    Raises: SandboxUnavailable.
    """
    container = Container(host, sandbox.plan, owner_label())
    try:
        container.start()
        return container.findings
    finally:
        container.close()


def list_containers(client: APIClient) -> list[Mapping[str, Any]]:
    """Every sandbox container of an engine, whosever it is."""
    with as_unavailable("listing sandbox containers"):
        return client.containers(all=True, filters={"label": LABEL})


def remove_container(client: APIClient, container_id: str) -> None:
    """Kill and remove; one that is gone already is fine."""
    try:
        with as_unavailable("removing a sandbox container"):
            client.remove_container(container_id, force=True)
    except SandboxUnavailable:
        pass


def _machine() -> str:
    """This boot of this machine and this process-id namespace: within it a process id means one thing."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{namespace}"
    except OSError:
        return f"{uuid.getnode():x}"


def _start_time(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where it is gone or the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return "gone"
        except OSError:
            pass
        return ""


def _say_what_takes_long(line: str) -> None:
    if line.startswith("building"):
        print(f"sandbox: {line}", file=sys.stderr, flush=True)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
