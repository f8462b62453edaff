"""What holds of the sandbox on an engine: the engine itself, the image, each limit of a container, and containers that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.docker_engine import as_unavailable, connect, engine_url, has_image
from sandbox.docker_pool import MAX_PROCESSES, DockerSandbox, list_containers, probe
from sandbox.errors import SandboxUnavailable
from sandbox.image.build import default_tag


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `holds` is None for what is neither good nor bad."""

    name: str
    holds: bool | None
    detail: str


def engine_finding(host: str | None = None) -> Finding:
    """Whether an engine answers, and which."""
    try:
        client = connect(host, timeout_seconds=10.0)
        with as_unavailable("asking the engine for its version"):
            version, info = client.version(), client.info()
    except SandboxUnavailable as error:
        return Finding("engine", False, str(error))
    cgroup = info.get("CgroupVersion", "?")
    return Finding("engine", True, f"{version['Version']} at {engine_url(host)}, storage {info['Driver']}, cgroup v{cgroup}")


def image_finding(host: str | None = None) -> Finding:
    """Whether the default image is there."""
    try:
        there = has_image(connect(host, timeout_seconds=10.0), default_tag())
    except SandboxUnavailable as error:
        return Finding("image", False, str(error))
    return Finding(
        "image", there, default_tag() if there else f"{default_tag()} is not there: run `rlvr sandbox build` (or let the first use)"
    )


def limit_findings(host: str | None = None, runtime: str | None = None) -> list[Finding]:
    """Start a container and say which of its limits hold; the image must be there."""
    try:
        sandbox = DockerSandbox(num_workers=1, hosts=[host] if host else (), runtime=runtime, patience_seconds=0.0)
        found = probe(sandbox, host)
    except SandboxUnavailable as error:
        return [Finding("container", False, str(error))]
    return describe(found, sandbox)


def describe(found: Mapping[str, Any], sandbox: DockerSandbox) -> list[Finding]:
    """Turn what a runner found into findings."""
    memory, processes = found["memory_bytes"], found["max_processes"]
    network = [name for name in found["network"] if name != "lo"]
    findings = [
        Finding("python", None, f"{found['python']} in the container, cgroup v{found['cgroup']}"),
        Finding("memory", memory is not None and memory < 64 * sandbox.memory_mib << 20, f"{(memory or 0) >> 20} MiB for a container"),
        Finding("processes", processes is not None and processes <= MAX_PROCESSES, f"{processes} for a container"),
        Finding("network", not network, "none" if not network else f"there is {', '.join(network)}"),
        Finding("read-only root", found["read_only_root"], "yes" if found["read_only_root"] else "no: programs can change the image"),
        Finding("work folder", found["work_bytes"] <= 1 << 30, f"{found['work_bytes'] >> 20} MiB, in memory"),
        Finding("seccomp", found["seccomp"], "filtered" if found["seccomp"] else "no filter of system calls"),
        Finding("no new privileges", found["no_new_privileges"], "yes" if found["no_new_privileges"] else "no"),
    ]
    if sandbox.runtime is None:
        return findings
    # Under another runtime, such as gVisor's, programs see a kernel that does not tell what holds outside of it.
    return [finding if finding.holds else Finding(finding.name, None, "not told by this runtime") for finding in findings]


def container_finding(host: str | None = None) -> Finding:
    """How many sandbox containers there are now."""
    try:
        containers = list_containers(connect(host, timeout_seconds=10.0))
    except SandboxUnavailable as error:
        return Finding("containers", False, str(error))
    return Finding("containers", None, f"{len(containers)} now")
