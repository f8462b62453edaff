"""Finds the user's Docker engine and talks to it: the one place that knows docker-py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxUnavailable

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_SOCKET = Path("/var/run/docker.sock")
REMEDY = (
    "install and start Docker (as root: `make docker`), or point DOCKER_HOST, a docker context or the option `hosts` to an engine "
    "that answers"
)


def engine_url(host: str | None = None) -> str:
    """Where the engine is: as given, else DOCKER_HOST, the current docker context, the system's socket, a rootless Docker's, Podman's."""
    if host or os.environ.get("DOCKER_HOST"):
        return host or os.environ["DOCKER_HOST"]
    return _context_url() or f"unix://{next((path for path in _sockets() if path.exists()), DEFAULT_SOCKET)}"


def connect(host: str | None = None, *, timeout_seconds: float = 60.0) -> APIClient:
    """Return a client of the engine's API, after a ping.

    Raises: SandboxUnavailable: nothing answers; names the address and the remedy.
    """
    import docker
    from docker.errors import DockerException
    from docker.tls import TLSConfig

    url = engine_url(host)
    tls: TLSConfig | bool = False
    if url.startswith("tcp://") and os.environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        try:
            tls = TLSConfig(client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")), ca_cert=str(folder / "ca.pem"), verify=True)
        except DockerException as error:
            raise SandboxUnavailable(f"DOCKER_TLS_VERIFY is set, but the certificates in {folder} cannot be used: {error}") from error
    try:
        client = docker.APIClient(base_url=url, version="auto", timeout=timeout_seconds, tls=tls, use_ssh_client=url.startswith("ssh://"))
        client.ping()
    except (DockerException, OSError) as error:
        raise SandboxUnavailable(f"no Docker engine answers at {url} ({_first_line(error)}): {REMEDY}") from error
    return client


@contextmanager
def as_unavailable(doing: str) -> Iterator[None]:
    """Turn what docker-py and its transport raise into SandboxUnavailable that says what was being done."""
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, OSError) as error:  # What its transport raises is an OSError.
        raise SandboxUnavailable(f"{doing} failed: {_first_line(error)}") from error


def has_image(client: APIClient, tag: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(tag)
    except ImageNotFound:
        return False
    return True


def _context_url() -> str | None:
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        context = ContextAPI.get_current_context()
    except (DockerException, OSError, ValueError):
        return None
    if context is None or context.name == "default":
        return None
    return context.Host or None


def _sockets() -> list[Path]:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    return [
        DEFAULT_SOCKET,
        runtime / "docker.sock",
        Path.home() / ".docker/run/docker.sock",
        Path("/run/podman/podman.sock"),
        runtime / "podman/podman.sock",
    ]


def _first_line(error: BaseException) -> str:
    lines = str(getattr(error, "explanation", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__
