"""How fast ten-assert checks are: the verifier `code` beside `docker run --rm` for each and beside a bare Python process for each.

    python -m bench.sandbox_speed                       throughput, side by side and interleaved in one run
    python -m bench.sandbox_speed --loops               256 completions, one in ten an infinite loop, at a limit of 2 s
    python -m bench.sandbox_speed --memory              what a warm container holds

Prints a Markdown table; the figures of record stand in docs/results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox.docker_engine import connect
from sandbox.docker_pool import list_containers, seccomp_profile
from sandbox.image.build import ensure_image
from verifiers.code_tests import shared_sandbox
from verifiers.registry import build
from verifiers.testing import FixedResponse
from verifiers.types import Problem

SOLUTION = """
from typing import List

def has_close_elements(numbers: List[float], threshold: float) -> bool:
    for index, first in enumerate(numbers):
        for other, second in enumerate(numbers):
            if index != other and abs(first - second) < threshold:
                return True
    return False
"""
ASSERTS = [f"assert has_close_elements([{n}.0, {n + 2}.5, {n + 3}.0, 9.5], {t}) == {t > 0.5}" for n in range(5) for t in (0.3, 0.8)]
LOOP = "def has_close_elements(numbers, threshold):\n    while True:\n        pass\n"
PROBLEM = Problem(
    "bench", ({"role": "user", "content": "…"},), {"tests": {"type": "asserts", "asserts": ASSERTS, "entry_point": "has_close_elements"}}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="programs at a time, for every method")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loops", action="store_true")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, {arguments.workers} workers, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    options = {"test_seconds": 2.0, "sandbox_options": {"num_workers": arguments.workers}}
    verifier = build("code", options)
    judge(verifier, [SOLUTION] * 4 * arguments.workers)  # Containers start.
    if arguments.loops:
        loops(verifier, arguments.workers)
    elif arguments.memory:
        memory()
    else:
        throughput(verifier, arguments.workers, arguments.rounds)
    shared_sandbox("docker", options["sandbox_options"]).close()


def throughput(verifier, workers: int, rounds: int) -> None:
    client = connect()
    image = ensure_image(client)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "check.py"
        file.write_text(SOLUTION + "\n".join(ASSERTS) + "\n")
        profile = Path(folder) / "seccomp.json"
        profile.write_text(seccomp_profile())
        run = [
            *("docker", "run", "--rm", "-i", "--network", "none", "--read-only", "--tmpfs", "/tmp:size=64m", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--security-opt", f"seccomp={profile}", "--memory", "512m", "--memory-swap", "512m"),
            *("--pids-limit", "64", "--user", "65534:65534", "--ipc", "none", image, "python3", "-"),
        ]
        methods = {
            "`code` (warm pool)": (600, lambda count: judge(verifier, [SOLUTION] * count)),
            "`subprocess.run([python, file])`": (200, lambda count: processes([sys.executable, str(file)], None, count, workers)),
            "`docker run --rm`, hardened": (8 * workers, lambda count: processes(run, file.read_bytes(), count, workers)),
        }
        rates: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(rounds):
            for name, (count, method) in methods.items():
                start = time.perf_counter()
                method(count)
                rates[name].append(count / (time.perf_counter() - start))
    ours = rates["`code` (warm pool)"]
    print("\n| method | checks/s, median | all rounds | `code` is faster by, median of rounds |\n|---|---|---|---|")
    for name, values in rates.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, values, strict=True))
        print(f"| {name} | {statistics.median(values):.1f} | {', '.join(f'{value:.0f}' for value in values)} | {ratio:.1f}x |")


def processes(command: list[str], stdin: bytes | None, count: int, workers: int) -> None:
    def one(_: int) -> None:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, range(count)))


def judge(verifier, programs: list[str]) -> list:
    async def all_groups() -> list:
        groups = [programs[start : start + 8] for start in range(0, len(programs), 8)]
        done = await asyncio.gather(*(verifier(PROBLEM, [FixedResponse(text) for text in group]) for group in groups))
        return [verdict for group in done for verdict in group]

    verdicts = asyncio.run(all_groups())
    assert all((verdict.outcome == "correct") == (program == SOLUTION) for verdict, program in zip(verdicts, programs, strict=True))
    return verdicts


def loops(verifier, workers: int) -> None:
    programs = [LOOP if index % 10 == 5 else SOLUTION for index in range(256)]
    count = programs.count(LOOP)
    start = time.perf_counter()
    judge(verifier, programs)
    seconds = time.perf_counter() - start
    least = count * 2.0 / workers
    print(
        f"256 completions, {count} infinite loops at 2 s, {workers} workers: "
        f"{seconds:.1f} s, {seconds / least:.3f} of loops x limit / workers = {least:.1f} s"
    )


def memory() -> None:
    client = connect()
    for container in list_containers(client):
        usage = client.stats(container["Id"], stream=False)["memory_stats"]
        top = client.top(container["Id"], ps_args="-o pid,rss,args")
        rss = sum(int(row[1]) for row in top["Processes"]) / 1024
        print(json.dumps({"cgroup_mib": round(usage["usage"] / 2**20, 1), "sum_of_rss_mib": round(rss, 1)}))


if __name__ == "__main__":
    main()
