"""A Docker daemon answers."""

from __future__ import annotations

import docker
import pytest
from docker.errors import DockerException

pytestmark = pytest.mark.docker


@pytest.fixture
def client():
    try:
        client = docker.from_env(timeout=20)
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker daemon answers ({error}); start it, or run `make docker` as root")
    yield client
    client.close()


def test_the_daemon_names_its_server_version_and_runs_linux_containers(client):
    server = client.version()
    assert int(server["Version"].split(".")[0]) >= 20
    assert server["Os"] == "linux"
