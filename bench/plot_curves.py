"""Draw the held-out curves that `bench/seeds.py` measured, into docs/images.

    python -m bench.plot_curves

`arithmetic_curve`: all seeds of `arithmetic_grpo`. `arithmetic_process_curve`: the same problems and models with rewards of outcomes alone
and with a process reward model beside them.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

RESULTS, IMAGES = Path("docs/results"), Path("docs/images")
BLUE, ORANGE = "#0b6e99", "#d9730d"
Curves = Mapping[int, Sequence[tuple[int, float]]]
"""For each seed, accuracy over steps."""


def main() -> None:
    """Read the curves and write each picture twice."""
    pyplot.rcParams["svg.hashsalt"] = "rlvr"  # the same curves give the same file
    figure, axes = pyplot.subplots(figsize=(7, 4))
    seeds = RESULTS / "arithmetic_seeds"
    draw(axes, read(seeds, "greedy"), BLUE, "greedy")
    draw(axes, read(seeds, "sampled"), ORANGE, "sampled at temperature 1")
    finish(figure, axes, f"Two- and three-digit sums, model built from nothing: {len(read(seeds, 'greedy'))} seeds and their mean")
    save(figure, "arithmetic_curve")

    compared = RESULTS / "process_seeds"
    if not compared.is_dir():  # `--keep docs/results/process_seeds/process`, and outcome.
        return
    process, outcome = (read(compared / kind, "sampled") for kind in ("process", "outcome"))
    figure, axes = pyplot.subplots(figsize=(7, 4))
    draw(axes, outcome, BLUE, "outcome rewards")
    draw(axes, process, ORANGE, "outcome and process rewards")
    axes.axhline(0.8, color="grey", linewidth=1, linestyle=":")
    finish(figure, axes, f"Sums, sampled at temperature 1: {len(process)} seeds and their mean")
    save(figure, "arithmetic_process_curve")


def read(folder: Path, kind: str) -> Curves:
    """Return what one call of `bench/seeds.py` kept; `kind` is greedy or sampled."""
    curves: dict[int, list[tuple[int, float]]] = defaultdict(list)
    with (folder / "curves.csv").open() as file:
        for row in csv.DictReader(file):
            curves[int(row["seed"])].append((int(row["step"]), float(row[kind])))
    return curves


def draw(axes: Axes, curves: Curves, colour: str, label: str) -> None:
    """Draw every seed faintly and their mean."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for curve in curves.values():
        axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.25, linewidth=1)
        for step, accuracy in curve:
            by_step[step].append(accuracy)
    axes.plot(list(by_step), [fmean(values) for values in by_step.values()], color=colour, linewidth=2.5, label=label)


def finish(figure: Figure, axes: Axes, title: str) -> None:
    """Name what is shown."""
    axes.set(xlabel="GRPO steps (32 prompts × 8 completions)", ylabel="held-out accuracy", ylim=(0, 1))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()


def save(figure: Figure, name: str) -> None:
    """Write the picture as .svg and .png."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    figure.savefig(IMAGES / f"{name}.png", dpi=150)


if __name__ == "__main__":
    main()
