"""What corrections for stale rollouts do to learning: the table of docs/asynchronous.md.

    python -m bench.off_policy --prepared runs/arithmetic-…-preparation [--steps 60] [--jobs 2] [--only 3 4]

Takes the model and data that a run of `arithmetic_grpo` prepared, and learns from them for some steps at a constant rate, once for each
variant, each in a process of its own with one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TRUNCATE = ["algorithm.correction={level: token, mode: truncate, high: 2.0}"]
VARIANTS: tuple[tuple[str, Sequence[str]], ...] = (
    ("0, none", ["batch.max_staleness=0"]),
    ("1, truncate at 2", ["batch.max_staleness=1", "engine.name=vllm", *TRUNCATE]),
    ("1, clip", ["batch.max_staleness=1", "engine.name=vllm"]),
    ("2, truncate at 2", ["batch.max_staleness=2", *TRUNCATE]),
    ("2, clip", ["batch.max_staleness=2"]),
    ("4, none", ["batch.max_staleness=4", "algorithm.correction=null"]),
    ("4, truncate at 2", ["batch.max_staleness=4", *TRUNCATE]),
    ("4, sequences truncated at 2", ["batch.max_staleness=4", "algorithm.correction={level: sequence, mode: truncate, high: 2.0}"]),
    ("4, sequences masked", ["batch.max_staleness=4", "algorithm.correction={level: sequence, mode: mask, low: 0.5, high: 2.0}"]),
    ("4, mask 0.5 / 2", ["batch.max_staleness=4", "algorithm.correction={level: token, mode: mask, low: 0.5, high: 2.0}"]),
    ("4, mask 0.8 / 1.25", ["batch.max_staleness=4", "algorithm.correction={level: token, mode: mask, low: 0.8, high: 1.25}"]),
    ("4, truncate at 2, rate 1e-4", ["batch.max_staleness=4", "optimizer.learning_rate=1e-4", *TRUNCATE]),
    ("4, clip", ["batch.max_staleness=4"]),
    ("0, none, rate 1e-4", ["batch.max_staleness=0", "optimizer.learning_rate=1e-4"]),
)
"""Bound of staleness and correction; with engine vLLM where the embedded engine would stay fresh. The default correction is the clip."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="+", default=list(range(len(VARIANTS))), help="numbers of variants, from 0")
    arguments = parser.parse_args()
    print("| staleness, correction | sampled | greedy |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as executor:
        rows = executor.map(lambda number: run(number, arguments.prepared, arguments.steps, Path(folder)), arguments.only)
        for row in rows:
            print(row, flush=True)


def run(number: int, prepared: Path, steps: int, folder: Path) -> str:
    name, overrides = VARIANTS[number]
    command = [sys.executable, "-m", "bench.off_policy", "--one", str(prepared), str(folder), str(number), str(steps), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return f"| {name} | collapsed | {'' if 'NoLearningSignal' in reason else reason[:100]} |"
    return f"| {name} | {done.stdout.strip().splitlines()[-1]} |"


def one(prepared: Path, folder: Path, number: int, steps: int, overrides: Sequence[str]) -> None:
    from recipes.arithmetic_grpo import config as recipe
    from rlvr.config import RunConfig
    from rlvr.config_files import resolve
    from rlvr.run import train

    [model] = prepared.glob("warmup/checkpoints/step_*/export")
    settings = [
        f"name=variant-{number}",
        f"runs_folder={folder}",
        f"model.path={model}",
        f"data.path={prepared / 'train.jsonl'}",
        f"held_out.data.path={prepared / 'held_out.jsonl'}",
        "held_out.every=0",
        f"num_steps={steps}",
        "num_threads=1",
        "optimizer.schedule=constant",
        "checkpoint.every=0",
        "tracking.sinks=[]",
        "tracking.rollouts_every=0",
    ]
    result = train(resolve(RunConfig, recipe, [*settings, *overrides]).config)
    assert result.last is not None and result.last.sampled_accuracy is not None
    print(f"{result.last.sampled_accuracy:.2f} | {result.last.greedy_accuracy:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
    else:
        main()
