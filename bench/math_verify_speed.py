"""Checks a second of the verifier `math` beside Math-Verify, on the same pairs, in one process, pair by pair in turn.

    python -m bench.math_verify_speed [--labelled FILE.jsonl …] [--limit N]

Rows need `gold` and `answer` (a bare answer, boxed here for both) or `response`; without files the cases of the test suite are taken.
Latencies are wall times of single checks; caches of both sides are as users have them. Also measures the cold start: a fresh interpreter
that imports the verifier and judges one answer, and one that does so with Math-Verify.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from verifiers.errors import VerifierError
from verifiers.math import Math
from verifiers.testing import FixedResponse
from verifiers.types import Problem

OURS = (
    "import asyncio; from verifiers.math import Math; from verifiers.testing import FixedResponse; from verifiers.types import Problem; "
    "print(asyncio.run(Math()(Problem('p', (), {'answer': '1/2'}), [FixedResponse(r'\\boxed{0.5}')]))[0].outcome)"
)
THEIRS = r"from math_verify import parse, verify; print(verify(parse(r'\boxed{1/2}'), parse(r'\boxed{0.5}')))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, nargs="*", default=[])
    parser.add_argument("--limit", type=int, default=10**9)
    options = parser.parse_args()
    pairs = [pair for file in options.labelled for pair in read_pairs(file)][: options.limit] or own_cases()
    from math_verify import parse, verify

    verifier = Math()
    loop = asyncio.new_event_loop()

    def ours(gold: str, response: str) -> bool:
        verdict = loop.run_until_complete(verifier(Problem("p", (), {"answer": gold}), [FixedResponse(response)]))[0]
        return verdict.outcome == "correct"

    def theirs(gold: str, response: str) -> bool:
        return bool(verify(parse(rf"\boxed{{{gold}}}"), parse(response)))

    ours("1", r"\boxed{\sqrt{2}}")  # Imports are the cold start's, measured apart.
    theirs("1", r"\boxed{\sqrt{2}}")
    ours_ms, theirs_ms = [], []
    for gold, response in pairs:
        ours_ms.append(timed(ours, gold, response))
        theirs_ms.append(timed(theirs, gold, response))
    print(f"{len(pairs)} pairs")
    print("| | checks/s | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for name, latencies in (("rlvr math", ours_ms), ("Math-Verify 0.9.0", theirs_ms)):
        latencies.sort()
        rate = 1000 * len(latencies) / sum(latencies)
        p50, p99 = statistics.median(latencies), latencies[int(len(latencies) * 0.99)]
        print(f"| {name} | {rate:.0f} | {p50:.2f} | {p99:.1f} | {latencies[-1]:.0f} |")
    print(f"ratio of rates: {sum(theirs_ms) / sum(ours_ms):.1f}")
    for name, code in (("bare interpreter", "pass"), ("rlvr math", OURS), ("Math-Verify", THEIRS)):
        print(f"cold start, {name}: {statistics.median(cold_start(code) for _ in range(5)):.2f} s")


def timed(check: Callable[[str, str], bool], gold: str, response: str) -> float:
    """Return the milliseconds one check took, whatever came of it."""
    start = time.perf_counter()
    try:
        check(gold, response)
    except VerifierError:
        pass
    return 1000 * (time.perf_counter() - start)


def cold_start(code: str) -> float:
    """Return the seconds a fresh interpreter takes for the code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def read_pairs(file: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(row["gold"], row["response"] if "response" in row else rf"\boxed{{{row['answer']}}}") for row in rows]


def own_cases() -> list[tuple[str, str]]:
    from tests.unit.math.cases import CASES

    return [(gold, rf"\boxed{{{answer}}}") for _, _, gold, answer in CASES]


if __name__ == "__main__":
    main()
