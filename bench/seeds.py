"""Run an arithmetic recipe with several seeds and keep their curves.

    python -m bench.seeds [--recipe arithmetic_grpo] [--seeds 0 1 2 …] [--jobs 2] [--folder runs/seeds]
                          [--keep docs/results/arithmetic_seeds] [key=value …]

Each run is its own process with one thread, on a copy of the source made at the start, so that work on the checkout does not change runs
that are still to come. With the `--folder` of an earlier call, seeds that are finished there are not run again. Writes `curves.csv`
(held-out accuracy over steps), and `README.md` with a table of what each seed reached and how long it took.
`bench/plot_curves.py` draws the picture.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

from bench.provenance import ROOT, commit, processor

PACKAGES = ("rlvr", "verifiers", "sandbox", "recipes")
GREEDY_TARGET, SAMPLED_TARGET, START_LIMIT = 0.9, 0.8, 0.5
"""What a run has to reach on held-out problems, and from where."""


@dataclass(frozen=True, slots=True)
class Point:
    """Held-out accuracy at one step of one run; step 0 is after the warm-up."""

    seed: int
    step: int
    greedy: float
    sampled: float


@dataclass(frozen=True, slots=True)
class Run:
    """What one seed did."""

    seed: int
    warmup_steps: int
    wall_seconds: float
    cpu_seconds: float
    points: tuple[Point, ...]

    @property
    def steps_to_target(self) -> int | None:
        """The first measured step with both targets reached; None: never."""
        return next((p.step for p in self.points if p.sampled > SAMPLED_TARGET and p.greedy > GREEDY_TARGET), None)

    @property
    def reached(self) -> bool:
        """Whether the run began below and ended above the targets."""
        first, last = self.points[0], self.points[-1]
        return first.sampled < START_LIMIT and last.sampled > SAMPLED_TARGET and last.greedy > GREEDY_TARGET


def run_seed(recipe: str, seed: int, folder: Path, overrides: Sequence[str]) -> Run | None:
    """Run the recipe in a process of its own and read its metrics; None if it failed, its output then lies in the folder."""
    name = f"seed-{seed}"
    seconds = folder / f"{name}.json"
    if not seconds.exists():
        source = (folder / "source").resolve()
        command = [sys.executable, str(source / "recipes" / f"{recipe}.py"), f"seed={seed}", f"runs_folder={folder}", f"name={name}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
        for leftover in (folder / name, folder / f"{name}-preparation"):
            shutil.rmtree(leftover, ignore_errors=True)
        started = time.monotonic()
        with (folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen([*command, "num_threads=1", *overrides], stdout=log, stderr=subprocess.STDOUT, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            print(f"seed {seed} failed, see {folder / name}.log", flush=True)
            return None
        measured = {"wall_seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime}
        seconds.write_text(json.dumps(measured))
    rows = read_rows(folder / name / "metrics.jsonl")
    points = [
        Point(seed, row["step"], row["held_out/greedy_accuracy"], row["held_out/sampled_accuracy"])
        for row in rows
        if "held_out/greedy_accuracy" in row
    ]
    warmup_steps = len(read_rows(folder / f"{name}-preparation" / "warmup" / "metrics.jsonl"))
    run = Run(seed, warmup_steps, **json.loads(seconds.read_text()), points=tuple(points))
    print(describe(run), flush=True)
    return run


def copy_source(folder: Path) -> str:
    """Keep the packages as they are now, and return the commit they are of; a folder that has them keeps its own."""
    for package in PACKAGES:
        target = folder / "source" / package
        if not target.exists():
            shutil.copytree(ROOT / package, target, ignore=shutil.ignore_patterns("__pycache__"))
    named = folder / "source" / "commit.txt"
    if not named.exists():
        named.write_text(commit())
    return named.read_text()


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def describe(run: Run) -> str:
    """One row of the table."""
    first, last = run.points[0], run.points[-1]
    return (
        f"| {run.seed} | {run.warmup_steps} | {first.greedy:.3f} → {last.greedy:.3f} | {first.sampled:.3f} → {last.sampled:.3f} | "
        f"{run.steps_to_target or 'never'} | {run.cpu_seconds / 60:.1f} | {run.wall_seconds / 60:.1f} | {'yes' if run.reached else 'no'} |"
    )


def write_results(recipe: str, runs: Sequence[Run], folder: Path, *, source: str, overrides: Sequence[str]) -> None:
    """Write curves and table of runs of the commit `source`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for run in runs for point in run.points)
    lines = [
        f"# `recipes/{recipe}.py` with {len(runs)} seeds",
        "",
        f"{date.today()}, commit {source}, {processor()}, one thread a run, on a shared machine. Accuracy on 500 held-out problems "
        f"before and after reinforcement; a run reached the goal if it began below {START_LIMIT:.0%} sampled and ended above "
        f"{SAMPLED_TARGET:.0%} sampled and {GREEDY_TARGET:.0%} greedy; steps to target is where it was first above both. Minutes are those "
        "of the whole run: imports, preparation, reinforcement, evaluations.",
        *([f"Settings other than the recipe's: `{' '.join(overrides)}`."] if overrides else []),
        "",
        "| seed | warm-up steps | greedy | sampled | steps to target | CPU minutes | wall minutes | reached |",
        "|---|---|---|---|---|---|---|---|",
        *[describe(run) for run in runs],
        "",
        f"Reached: {sum(run.reached for run in runs)} of {len(runs)}. Curves: `curves.csv`; script: `bench/seeds.py`.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[-1:]))


def main() -> None:
    """Run all seeds, a few at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="arithmetic_grpo")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("docs/results/arithmetic_seeds"))
    parser.add_argument("--folder", type=Path, default=Path("runs") / f"seeds-{time.strftime('%Y%m%d-%H%M%S')}")
    options, overrides = parser.parse_known_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    lock = (options.folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error(f"another call is at work in {options.folder}: a seed that is not finished would be begun again under it")
    source = copy_source(options.folder)
    with ThreadPoolExecutor(options.jobs) as executor:
        results = executor.map(lambda seed: run_seed(options.recipe, seed, options.folder, overrides), options.seeds)
        runs = [run for run in results if run is not None]
    write_results(options.recipe, runs, options.keep, source=source, overrides=overrides)
    if len(runs) < len(options.seeds):
        sys.exit(1)


if __name__ == "__main__":
    main()
