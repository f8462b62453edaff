"""The seam between the trainer and the model that learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from rlvr.batch import LossInputs, MiniBatch, Totals
from rlvr.types import TrainSample


class Objective(Protocol):
    """Turns what a loss may see into the scalar to minimise; sums over micro-batches give the whole objective."""

    needs_entropy: bool
    needs_reference: bool

    def __call__(self, inputs: LossInputs, totals: Totals) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the micro-batch's share of the objective and per-token statistics [B, L], detached."""
        ...


@dataclass(frozen=True, slots=True)
class Term:
    """One component of the loss: sequences, an objective over them and a weight. Each term is divided by its own totals, so a
    supervised or pre-training mix is one more term. `temperature` None is that of the policy, which sampled; given text has 1."""

    minibatch: MiniBatch
    objective: Objective
    weight: float = 1.0
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What one optimizer step did. `stats` are means over scored tokens; maxima carry the suffix `_max`."""

    loss: float
    grad_norm: float
    learning_rate: float
    stats: dict[str, float]


class Policy(Protocol):
    """A causal language model that is updated from packed mini-batches."""

    version: int
    """How many times `update` has stepped the optimizer; travels with each completion."""

    def update(self, *terms: Term) -> UpdateResult:
        """Take one optimizer step on the sum of the terms; an empty mini-batch adds a gradient of exactly zero."""
        ...

    def annotate(self, minibatch: MiniBatch, *, old: bool, reference: bool) -> MiniBatch:
        """Return the mini-batch with `old_logprobs` and / or `reference_logprobs` filled in, no gradient."""
        ...

    def logprobs(self, samples: Sequence[TrainSample], *, reference: bool = False) -> list[list[float]]:
        """Return each sample's log-probs, 0 where its mask is False."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the full state dict, tied names included, LoRA merged."""
        ...

    def save_adapter(self, folder: Path) -> None:
        """Write the low-rank adapters alone, as peft does; only where there are any."""
        ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...

    def export(self, folder: Path) -> None:
        """Write a plain `save_pretrained` folder with the tokenizer."""
        ...
