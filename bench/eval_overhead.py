"""What `rlvr eval` costs beside generation and verification, as a share of a suite's wall time.

    python -m bench.eval_overhead --data DIR [--output docs/results/DATE-eval-overhead.md]

DIR holds the benchmarks' files. Models of random weights answer: they write until they are cut off, so that a token costs what it costs,
whatever it says. Each run is the command in a process of its own, without the cache. `suite` is the time from the first problem to the last
number, all benchmarks together; `command` is the whole process, with Python's imports and the loading of model and data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench.provenance import commit, processor
from bench.vllm_throughput import SIZES, save_model

RUNS = [
    # size, engine, suites, problems of each benchmark, answers to each, tokens
    ("0.9 M", "transformers", ("math",), 100, 1, 128),
    ("0.9 M", "transformers", ("math",), 100, 4, 128),
    ("19 M", "transformers", ("math",), 30, 4, 128),
    ("0.9 M", "vllm", ("math",), 100, 4, 128),
    ("0.9 M", "transformers", ("humaneval", "mbpp"), 80, 4, 128),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in dict.fromkeys(run[0] for run in RUNS):
            save_model(Path(folder) / size.replace(" ", ""), *SIZES[size], context=2048)
        lines = [line(run, [measure(Path(folder), run, arguments.data) for _ in range(arguments.rounds)]) for run in RUNS]
    text = report(lines, arguments)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


def measure(folder: Path, run: tuple[Any, ...], data: Path) -> dict[str, float]:
    """Run the command once; seconds."""
    size, engine, suites, problems, num_samples, tokens = run
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "rlvr", "eval", str(folder / size.replace(" ", ""))]
        command += [word for suite in suites for word in ("--suite", suite)]
        command += ["--data", str(data), "--limit", str(problems), "--n", str(num_samples), "--max-new-tokens", str(tokens)]
        command += ["--engine", engine, "--output", output, "cache=false"]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            raise SystemExit(done.stderr[-3000:])
        parts = [each["seconds"] for each in json.loads((Path(output) / "results.json").read_text())["benchmarks"]]
    return {name: sum(part[name] for part in parts) for name in parts[0]} | {"command": seconds}


def line(run: tuple[Any, ...], rounds: list[dict[str, float]]) -> str:
    size, engine, suites, problems, num_samples, tokens = run
    middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    shares = [each["busy"] / each["total"] for each in rounds]
    what = f"{' and '.join(suites)}, {problems} problems each, {num_samples} x {tokens} tokens"
    print(what, engine, size, shares, flush=True)
    cells = [size, engine, what, *(f"{middle[name]:.2f}" for name in ("total", "generation", "verification"))]
    cells += [f"{100 * statistics.median(shares):.1f} %", f"{middle['command']:.1f}"]
    return "| " + " | ".join(cells) + " |"


def report(lines: list[str], arguments: argparse.Namespace) -> str:
    import torch

    head = [
        "# What evaluating costs beside generation and verification",
        "",
        f"{date.today()}, commit {commit()}, {processor()}, {os.cpu_count()} cores, OMP_NUM_THREADS "
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}, torch {torch.__version__}.",
        "",
        f"`python -m bench.eval_overhead`: models of random weights; medians of {arguments.rounds} runs, seconds. The share is the "
        "time in which something was being generated or verified (or both) over the suite's wall time; the command has Python's "
        "imports and the loading of model, engine and data besides.",
        "",
        "| parameters | engine | suite | suite s | generation s | verification s | share | command s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines, ""])


if __name__ == "__main__":
    main()
