"""Containers, runners, daemons and trainers are killed in the middle of a batch: nothing hangs, nothing is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import DockerSandbox, Limits, Program
from sandbox.docker_engine import connect
from sandbox.docker_pool import list_containers, remove_orphans
from sandbox.errors import SandboxUnavailable
from sandbox.image.build import default_tag
from tests.integration.docker.conftest import calls
from verifiers.code_tests import Code
from verifiers.errors import VerifierError
from verifiers.testing import FixedResponse
from verifiers.types import Problem

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).resolve().parents[3]
SLOW = "import time\ntime.sleep(0.15)\nprint(input())"


async def batch(box: DockerSandbox, count: int = 40) -> list[str]:
    """Run programs that echo their number; their outputs in order."""
    done = await asyncio.gather(*(box.run(Program(SLOW, stdin=str(number), limits=Limits(wall_seconds=5.0))) for number in range(count)))
    return [execution.stdout.strip() for execution in done]


def run_while(box: DockerSandbox, disturb: Callable[[], None], count: int = 40) -> None:
    """Run a batch with a disturbance in the middle; every program must have its own answer."""
    asyncio.run(batch(box, 4))
    disturber = threading.Timer(0.8, disturb)
    disturber.start()
    outputs = asyncio.run(asyncio.wait_for(batch(box, count), 120))
    disturber.join()
    assert outputs == [str(number) for number in range(count)]


def own_containers(engine) -> list[str]:
    return [each["Id"] for each in list_containers(engine) if f"/{os.getpid()}/" in next(iter(each["Labels"].values()))]


def runner_pids() -> list[int]:
    """Process 1 of each container, as the host counts."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if b"Reads the modules of this folder" in (folder / "cmdline").read_bytes() and "NSpid" in (
                    text := (folder / "status").read_text()
                ):
                    if text.split("NSpid:")[1].split("\n")[0].split()[-1] == "1":
                        found.append(int(folder.name))
            except OSError:
                continue
    return found


def test_a_killed_container_costs_no_program(engine, own_pool: Callable[..., DockerSandbox]) -> None:
    box = own_pool(num_workers=2)
    before = set(own_containers(engine))
    run_while(box, lambda: [engine.kill(each) for each in own_containers(engine) if each not in before][:0])
    assert box.counters.workers_lost >= 1 and box.counters.retries >= 1


def test_a_killed_runner_costs_no_program(engine, own_pool: Callable[..., DockerSandbox]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may kill a process of a docker container")
    box, before = own_pool(num_workers=2), set(runner_pids())
    run_while(box, lambda: [os.kill(pid, signal.SIGKILL) for pid in runner_pids() if pid not in before][:0])
    assert box.counters.workers_lost >= 1


def test_a_program_whose_container_dies_every_time_is_killed_not_retried_for_ever(own_pool: Callable[..., DockerSandbox], engine) -> None:
    box, spared, stop = own_pool(), set(own_containers(engine)), threading.Event()
    asyncio.run(batch(box, 1))

    def keep_killing() -> None:
        while not stop.wait(1.5):  # Time enough for the next one to start.
            for each in set(own_containers(engine)) - spared:
                engine.remove_container(each, force=True)

    killer = threading.Thread(target=keep_killing)
    killer.start()
    try:
        done = asyncio.run(asyncio.wait_for(box.run(Program("import time; time.sleep(20)", limits=Limits(wall_seconds=30.0))), 60))
    finally:
        stop.set()
        killer.join()
    assert done.status == "killed" and done.exit_code is None
    assert asyncio.run(batch(box, 2)) == ["0", "1"], "the pool heals"


def test_a_container_in_which_no_program_can_start_is_replaced(engine, own_pool: Callable[..., DockerSandbox]) -> None:
    """Its work folder is full, from outside: no program could do that and leave it so."""
    before = set(own_containers(engine))
    box = own_pool()
    asyncio.run(batch(box, 1))
    (container,) = set(own_containers(engine)) - before
    filler = "import os\nfor n in range(20000): os.close(os.open(f'/tmp/fill{n}', os.O_CREAT))"
    engine.exec_start(engine.exec_create(container, ["python3", "-c", filler])["Id"])
    assert asyncio.run(batch(box, 3)) == ["0", "1", "2"]
    assert box.counters.retries == 1 and box.counters.workers_recycled == 1


def test_isolation_by_job_gives_each_program_a_container_of_its_own(own_pool: Callable[..., DockerSandbox]) -> None:
    box = own_pool(isolation="job")
    assert asyncio.run(batch(box, 3)) == ["0", "1", "2"]
    assert box.counters.workers_started == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_container_outlives_the_process_it_belongs_to(how: signal.Signals, engine) -> None:
    script = (
        "import asyncio\nfrom sandbox import DockerSandbox, Program\n"
        "async def main():\n    box = DockerSandbox(num_workers=2)\n    await box.run(Program('print(1)'))\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.gather(*(box.run(Program('while True: pass')) for _ in range(8)))\nasyncio.run(main())\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert trainer.stdout.readline() == "ready\n"

    def containers() -> list:
        return [each for each in list_containers(engine) if f"/{trainer.pid}/" in next(iter(each["Labels"].values()))]

    assert containers()
    trainer.send_signal(how)
    trainer.wait(timeout=30)
    deadline = time.monotonic() + 20
    while containers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert containers() == []


def test_containers_of_a_process_that_is_gone_are_removed_at_the_next_start(engine) -> None:
    label = {"io.rlvr.sandbox": f"{next(iter(owner()))}/999999/1"}
    orphan = engine.create_container(default_tag(), command=["sleep", "600"], labels=label, network_disabled=True)["Id"]
    engine.start(orphan)
    assert remove_orphans(engine) >= 1
    assert orphan not in [each["Id"] for each in engine.containers(all=True)]


def owner() -> list[str]:
    from sandbox.docker_pool import owner_label

    return [owner_label().split("/")[0]]


def test_without_an_engine_programs_fail_with_the_remedy_and_groups_are_not_scored(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/docker.sock"
    box = DockerSandbox(num_workers=2, hosts=[nowhere], patience_seconds=0.5)
    with pytest.raises(SandboxUnavailable, match=r"no Docker engine answers at unix.*install and start Docker.*DOCKER_HOST"):
        asyncio.run(box.run(Program("print(1)")))
    box.close()
    verifier = Code(sandbox_options={"hosts": [nowhere], "patience_seconds": 0.5})
    start = time.monotonic()
    with pytest.raises(VerifierError, match="no Docker engine answers"):
        asyncio.run(verifier(Problem("p", (), {"tests": calls("f", ([1], 1))}), [FixedResponse("def f(x): return x")] * 64))
    assert time.monotonic() - start < 30, "jobs that wait do not wait one after the other"


def test_an_engine_that_does_not_answer_is_left_for_one_that_does(engine, tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with DockerSandbox(
            num_workers=2, hosts=[f"unix://{tmp_path}/none.sock", "unix:///var/run/docker.sock"], patience_seconds=2.0
        ) as box:
            return await batch(box, 6)

    if os.environ.get("DOCKER_HOST"):
        pytest.skip("the engine is elsewhere")
    assert asyncio.run(main()) == [str(number) for number in range(6)]


@pytest.fixture
def second_daemon(engine, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """A Docker daemon of this test's own, with the sandbox image; call it to kill -9 the daemon and start it again."""
    dockerd = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if dockerd is None or os.geteuid() != 0:
        pytest.skip("a daemon of one's own needs dockerd and root")
    socket = tmp_path / "docker.sock"
    # In a network of its own: it would take the other daemon's bridge away.
    command = [
        "unshare",
        "--net",
        dockerd,
        "--host",
        f"unix://{socket}",
        "--data-root",
        str(tmp_path / "data"),
        "--exec-root",
        str(tmp_path / "exec"),
    ]
    command += ["--pidfile", str(tmp_path / "pid"), "--bridge=none", "--iptables=false"]
    running: list[subprocess.Popen] = []

    def start() -> str:
        # Twice, as a service manager would: the first may meet the remains of the one that was killed.
        for _ in range(4):
            (tmp_path / "pid").unlink(missing_ok=True)
            log = (tmp_path / "log").open("ab")
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and running[-1].poll() is None:
                try:
                    connect(f"unix://{socket}", timeout_seconds=5.0).close()
                    return f"unix://{socket}"
                except SandboxUnavailable:
                    time.sleep(0.3)
            running[-1].kill()
        raise AssertionError((tmp_path / "log").read_text()[-2000:])

    def restart() -> str:
        running[-1].kill()
        running[-1].wait()
        return start()

    url = start()
    client = connect(url, timeout_seconds=300.0)
    for chunk in client.load_image(b"".join(engine.get_image(default_tag())), quiet=True) or []:
        assert "error" not in chunk, chunk
    client.close()
    restart.url = url
    yield restart
    running[-1].terminate()
    try:
        running[-1].wait(timeout=30)
    except subprocess.TimeoutExpired:
        running[-1].kill()
    subprocess.run(f"mount | grep {tmp_path} | cut -d' ' -f3 | xargs -r umount -l", shell=True)


def test_a_daemon_killed_and_started_again_costs_no_program(second_daemon: Callable[[], str]) -> None:
    box = DockerSandbox(num_workers=2, hosts=[second_daemon.url], patience_seconds=150.0)
    asyncio.run(batch(box, 4))
    disturber = threading.Timer(0.8, second_daemon)
    disturber.start()
    outputs = asyncio.run(asyncio.wait_for(batch(box, 40), 200))
    disturber.join()
    assert outputs == [str(number) for number in range(40)]
    box.close()
    client = connect(second_daemon.url)
    deadline = time.monotonic() + 20
    while (left := client.containers(all=True)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
