"""Draw the held-out curves of all seeds that `bench/seeds.py` measured: docs/images/arithmetic_curve.svg and .png.

python -m bench.plot_curves
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

CURVES = Path("docs/results/arithmetic_seeds/curves.csv")
PICTURE = Path("docs/images/arithmetic_curve")
COLOURS = {"greedy": "#0b6e99", "sampled": "#d9730d"}


def main() -> None:
    """Read the curves and write the picture twice."""
    with CURVES.open() as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({int(row["seed"]) for row in rows})
    pyplot.rcParams["svg.hashsalt"] = "rlvr"  # the same curves give the same file
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for kind, colour in COLOURS.items():
        by_step: dict[int, list[float]] = defaultdict(list)
        for seed in seeds:
            curve = [(int(row["step"]), float(row[kind])) for row in rows if int(row["seed"]) == seed]
            axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.25, linewidth=1)
            for step, accuracy in curve:
                by_step[step].append(accuracy)
        label = "greedy" if kind == "greedy" else "sampled at temperature 1"
        axes.plot(list(by_step), [fmean(values) for values in by_step.values()], color=colour, linewidth=2.5, label=label)
    axes.set(xlabel="GRPO steps (32 prompts × 8 completions)", ylabel="held-out accuracy", ylim=(0, 1))
    axes.set_title(f"Two- and three-digit sums, model built from nothing: {len(seeds)} seeds and their mean", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(PICTURE.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
