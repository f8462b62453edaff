"""What programs cannot reach, and what is left of them: nothing in the real sandbox, and in weak ones just what the probes look for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from sandbox import DockerSandbox, Limits, Program
from tests.integration.docker.probes import LEAVE_BEHIND, PROBES, REMAINS, WEAK_FOR, UntidySandbox

pytestmark = pytest.mark.docker


def run(box: DockerSandbox, source: str, seconds: float = 5.0):
    return asyncio.run(box.run(Program(source, limits=Limits(wall_seconds=seconds))))


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_finds_nothing(name: str, pool: DockerSandbox) -> None:
    done = run(pool, PROBES[name])
    assert done.status == "ok", done
    assert "ESCAPED" not in done.stdout


@pytest.mark.parametrize("kind", sorted({each.__name__ for each in WEAK_FOR.values()}))
def test_each_probe_finds_what_it_looks_for_in_a_weak_sandbox(kind: str, own_pool: Callable[..., DockerSandbox]) -> None:
    box = own_pool(next(each for each in WEAK_FOR.values() if each.__name__ == kind))
    blind = [name for name, weak in WEAK_FOR.items() if weak.__name__ == kind and "ESCAPED" not in run(box, PROBES[name]).stdout]
    assert not blind, f"these probes could not fail: {blind}"


@pytest.mark.parametrize("name", LEAVE_BEHIND)
def test_the_next_program_sees_nothing_of_the_one_before(name: str, own_pool: Callable[..., DockerSandbox]) -> None:
    box = own_pool()
    run(box, LEAVE_BEHIND[name], seconds=2.0)
    after = run(box, REMAINS)
    assert after.stdout == "remains: []\n", after
    assert box.counters.workers_started == 1, "the container had to be thrown away"


@pytest.mark.parametrize("name", ["a file", "a daemon", "an abstract socket"])
def test_remains_are_seen_where_nobody_tidies_up(name: str, own_pool: Callable[..., DockerSandbox]) -> None:
    box = own_pool(UntidySandbox)
    run(box, LEAVE_BEHIND[name], seconds=2.0)
    assert run(box, REMAINS).stdout != "remains: []\n"


def test_each_program_is_a_user_of_its_own_with_a_folder_of_its_own(own_pool: Callable[..., DockerSandbox]) -> None:
    source = "import os\nprint(os.getuid(), os.getgid(), os.getgroups(), oct(os.stat('.').st_mode & 0o777))"
    box = own_pool()
    first, second = run(box, source).stdout, run(box, source).stdout
    assert first != second
    assert all(line.endswith("[] 0o700\n") for line in (first, second))


def test_no_place_outside_its_folder_is_writable(pool: DockerSandbox) -> None:
    source = """
import os
open_places = []
for folder, folders, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys", os.getcwd())):
        folders[:] = []
        continue
    if os.access(folder, os.W_OK):
        open_places.append(folder)
print(open_places)
"""
    # World-writable folders of the image count too: its root is read-only, and so access(2) denies them.
    assert run(pool, source).stdout == "[]\n"


def test_an_environment_tells_nothing(pool: DockerSandbox) -> None:
    names = json.loads(run(pool, "import json, os; print(json.dumps(sorted(os.environ)))").stdout)
    assert set(names) <= {"HOME", "TMPDIR", "PATH", "LANG", "PYTHONDONTWRITEBYTECODE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("print('ok')", "ok"),
        ("raise SystemExit(3)", "error"),
        ("1 / 0", "error"),
        ("while True: pass", "timeout"),
        ("import time; time.sleep(100)", "timeout"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
        ("import re; re.match(r'(a+)+$', 'a' * 60 + 'b')", "timeout"),
        ("print('x' * 10_000_000)", "output"),
        ("while True: print('x')", "output"),
        ("x = bytearray(2 << 30)", "memory"),
        ("import mmap\nk = []\nwhile True:\n    k.append(mmap.mmap(-1, 1 << 26))\n    k[-1].write(bytes(1 << 26))", "memory"),
        ("import ctypes; ctypes.string_at(0)", "killed"),
        ("import os\nwhile True: os.fork()", "error"),
        ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", "error"),
        ("open('big', 'wb').write(bytes(1 << 30))", "memory"),
        ("f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))", "error"),
        ("k = []\nwhile True: k.append(open('/dev/null'))", "error"),
        ("exec('(' * 100_000)", "error"),
    ],
)
def test_limits_end_a_program_and_say_which(source: str, status: str, pool: DockerSandbox) -> None:
    done = run(pool, source, seconds=8.0 if status == "memory" else 2.0)
    assert done.status == status, done
    assert done.wall_seconds < 12.0
    assert run(pool, "print(6 * 7)").stdout == "42\n"


def test_numpy_threads_processes_and_temporary_files_work(pool: DockerSandbox) -> None:
    source = """
import concurrent.futures, multiprocessing, numpy, subprocess, sys, tempfile, threading
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x"); file.flush()
with concurrent.futures.ThreadPoolExecutor(4) as threads:
    print(sum(threads.map(lambda x: x * x, range(5))))
queue = multiprocessing.get_context("fork").Pipe()
print(subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True, text=True).stdout.strip())
print(int(numpy.arange(5).sum()), input())
"""
    done = asyncio.run(pool.run(Program(source, stdin="line\n", files={"data/a.txt": "x"})))
    assert (done.status, done.stdout) == ("ok", "30\n7\n10 line\n"), done
