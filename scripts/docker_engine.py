"""Sees to it that a Docker daemon answers: installs the distribution's engine where the user may, and starts it where it is not running.

Ends with status 0 in every case: where there is no Docker the tests that need it are skipped with a reason (and fail in CI).
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOCKET = Path("/var/run/docker.sock")
LOG = Path(tempfile.gettempdir()) / "rlvr-dockerd.log"
# debootstrap builds the sandbox image from the distribution's own packages, so that no image registry is needed.
PACKAGES = ("docker.io", "debootstrap")
START_SECONDS = 40
RETRY_SECONDS = 3
# Tried in turn: as configured, twice, since the first may meet the remains of a daemon that was killed; then without a layered file
# system, which fails inside some containers; then also without a network.
DAEMON_OPTIONS = ([], [], ["--storage-driver=vfs"], ["--storage-driver=vfs", "--iptables=false", "--bridge=none"])


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(SOCKET))


def main() -> int:
    if os.environ.get("DOCKER_HOST"):
        return 0  # A daemon elsewhere: the tests say whether it answers.
    has_debootstrap = shutil.which("debootstrap") is not None
    if daemon_answers() and has_debootstrap:
        return 0
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root:
        if not daemon_answers():
            print("docker: no daemon answers; start Docker, or run as root to have it installed", file=sys.stderr)
        return 0
    if (dockerd() is None and not daemon_answers()) or not has_debootstrap:
        install_packages()
    if not daemon_answers() and dockerd() is not None:
        start_daemon()
    return 0


def daemon_answers() -> bool:
    if not SOCKET.exists():
        return False
    connection = UnixConnection("localhost", timeout=5)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def dockerd() -> str | None:
    return shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def install_packages() -> None:
    if shutil.which("apt-get") is None:
        print(f"docker: install {' and '.join(PACKAGES)} with this system's package manager", file=sys.stderr)
        return
    print(f"docker: installing {' '.join(PACKAGES)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with LOG.open("ab") as log:
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            if subprocess.run(command, env=environment, stdout=log, stderr=log).returncode != 0:
                print(f"docker: {' '.join(command)} failed, see {LOG}", file=sys.stderr)
                return


def start_daemon() -> None:
    for options in DAEMON_OPTIONS:
        print(f"docker: starting dockerd {' '.join(options)}".rstrip() + f", log in {LOG}", flush=True)
        with LOG.open("ab") as log:
            daemon = subprocess.Popen([dockerd(), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and daemon.poll() is None:
            if daemon_answers():
                return
            time.sleep(0.3)
        if daemon.poll() is None:
            daemon.terminate()
            daemon.wait(timeout=30)
        time.sleep(RETRY_SECONDS)
    print(f"docker: the daemon did not start, see {LOG}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
