"""The runner without a container: same protocol, same limits, none of the walls."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from sandbox import Limits, LocalSandbox, Program, Sandbox
from sandbox.errors import SandboxUnavailable
from sandbox.pool import Pool
from verifiers.code_tests import harness_modules
from verifiers.registry import build
from verifiers.testing import FixedResponse, check_verifier
from verifiers.types import Problem

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds what a program left through /proc")

LOCAL = {"sandbox": "local", "sandbox_options": {"allow_unsafe": True, "num_workers": 2}}
TESTS = {"type": "calls", "entry_point": "f", "cases": [{"args": [1], "expected": 2}]}
PROBLEM = Problem("p", ({"role": "user", "content": "…"},), {"tests": TESTS})


@pytest.fixture(scope="module")
def box():
    with_modules = LocalSandbox(allow_unsafe=True, num_workers=2, modules=harness_modules())
    yield with_modules
    with_modules.close()


def run(box: LocalSandbox, source: str, seconds: float = 3.0, stdin: str = ""):
    return asyncio.run(box.run(Program(source, stdin, limits=Limits(wall_seconds=seconds))))


def test_it_refuses_to_start_unless_told_that_it_is_unsafe() -> None:
    with pytest.raises(ValueError, match="does not contain programs.*read and change your files.*allow_unsafe=true"):
        LocalSandbox()


def test_it_is_a_sandbox_by_protocol(box: LocalSandbox) -> None:
    assert isinstance(box, Sandbox)


def test_programs_end_as_they_do_in_a_container(box: LocalSandbox) -> None:
    assert run(box, "print(input() + '!')", stdin="hello\n").stdout == "hello!\n"
    assert run(box, "raise SystemExit(3)").exit_code == 3
    assert "ZeroDivisionError" in run(box, "1 / 0").stderr
    assert run(box, "while True: pass", seconds=0.3).status == "timeout"
    assert run(box, "x = bytearray(2 << 30)").status == "memory"
    assert run(box, "print('x' * (4 << 20))").status == "output"
    assert run(box, "import ctypes; ctypes.string_at(0)").status == "killed"


def test_a_daemon_does_not_outlive_its_program(box: LocalSandbox, tmp_path) -> None:
    mark = tmp_path / "alive"
    source = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            open({str(mark)!r}, "a").write("x")
            time.sleep(0.05)
    os._exit(0)
os.wait()
time.sleep(0.3)
"""
    run(box, source)
    size = mark.stat().st_size
    time.sleep(0.4)
    assert size > 0 and mark.stat().st_size == size


def test_the_verifier_keeps_its_contract_on_it() -> None:
    check_verifier(build("code", {**LOCAL, "test_seconds": 1.0}), PROBLEM, [FixedResponse("def f(x): return x + 1")])


def test_it_works_from_several_event_loops_and_threads(box: LocalSandbox) -> None:
    outputs: list[str] = []
    threads = [threading.Thread(target=lambda n=n: outputs.append(run(box, f"print({n})").stdout)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == [f"{n}\n" for n in range(8)]


def test_a_runner_that_is_killed_costs_no_program(box: LocalSandbox) -> None:
    def kill_one() -> None:
        time.sleep(0.3)
        next(iter(box._pool._workers.values()))._process.kill()

    lost = box.counters.workers_lost
    killer = threading.Thread(target=kill_one)
    killer.start()

    async def batch():
        return await asyncio.gather(*(box.run(Program(f"import time; time.sleep(0.2); print({n})")) for n in range(12)))

    done = asyncio.run(batch())
    killer.join()
    assert [each.stdout for each in done] == [f"{n}\n" for n in range(12)]
    assert box.counters.workers_lost == lost + 1


def test_whatever_the_engine_raises_no_program_waits_for_ever() -> None:
    def broken(index: int, attempt: int):
        raise LookupError("an answer nobody foresaw")

    pool = Pool(broken, num_workers=1)
    with pytest.raises(SandboxUnavailable, match="the sandbox failed: LookupError.*nobody foresaw"):
        pool.submit(b"", 1.0).result(timeout=10)
    with pytest.raises(SandboxUnavailable):  # The thread that met it still serves.
        pool.submit(b"", 1.0).result(timeout=10)
    pool.close()


def test_a_closed_sandbox_takes_no_more_programs() -> None:
    closed = LocalSandbox(allow_unsafe=True, num_workers=1)
    assert run(closed, "print(1)").stdout == "1\n"
    closed.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        run(closed, "print(1)")


def test_a_judgement_that_is_cancelled_leaves_the_pool_working(box: LocalSandbox) -> None:
    async def main() -> str:
        tasks = [asyncio.ensure_future(box.run(Program("import time; time.sleep(1)"))) for _ in range(6)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        return (await box.run(Program("print('still here')"))).stdout

    assert asyncio.run(main()) == "still here\n"
