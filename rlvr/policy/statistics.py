"""Sums and maxima over the scored tokens of an update, of one process or of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Statistics:
    """Adds up what objectives report per token; a name that ends in `_max` is a maximum, every other a mean."""

    def __init__(self) -> None:
        self.loss = 0.0
        self._parts: dict[str, list[Tensor]] = {}
        self._counts: dict[str, int] = {}

    def add(self, loss: float, stats: Mapping[str, Tensor], mask: Tensor) -> None:
        """Take in a micro-batch: its share of the loss, and values [B, L] that count where `mask`."""
        self.loss += loss
        num_scored = int(mask.sum())
        for name, values in stats.items():
            at_scored = values[mask]
            self._parts.setdefault(name, []).append(at_scored.max() if name.endswith("_max") else at_scored.sum())
            self._counts[name] = self._counts.get(name, 0) + num_scored

    def means(self) -> dict[str, float]:
        """Means over the scored tokens that each statistic was reported for, and maxima."""
        return joined([self.sums()])

    def sums(self) -> dict[str, tuple[float, int]]:
        """Each statistic's sum, or maximum, and how many tokens it speaks of."""
        return {
            name: (float(torch.stack(parts).max() if name.endswith("_max") else torch.stack(parts).sum()), self._counts[name])
            for name, parts in self._parts.items()
        }


def joined(each: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
    """Return the means and maxima over several processes' sums."""
    names = sorted({name for sums in each for name in sums})
    values = {name: [sums[name] for sums in each if name in sums] for name in names}
    return {
        name: max(value for value, _ in found)
        if name.endswith("_max")
        else sum(value for value, _ in found) / max(1, sum(count for _, count in found))
        for name, found in values.items()
    }
