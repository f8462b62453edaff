"""The objective of an implicit reward model: cross-entropy between what its tokens' rewards add up to and the outcome."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlvr.batch import LossInputs, Totals
from rlvr.losses.objective import zero_outside_mask


@dataclass(frozen=True, slots=True)
class ImplicitRewardObjective:
    """-[o log sigma(r) + (1 - o) log(1 - sigma(r))] with r = beta * sum over a sequence's tokens of (logprob - reference logprob).

    Mean over the sequences of the totals. The outcome o, in [0, 1], stands in the place of the advantages, the same on every scored token
    of its sequence. PRIME arXiv:2502.01456, algorithm 1, line 8; why the sum may be taken apart again: arXiv:2412.01981, section 3.
    """

    beta: float
    needs_entropy: bool = False
    needs_reference: bool = True

    def __call__(self, inputs: LossInputs, totals: Totals) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the micro-batch's share of the objective; it has no statistics of single tokens."""
        inputs = zero_outside_mask(inputs)
        if inputs.reference_logprobs is None:
            raise ValueError("an implicit reward is relative to the reference, and `reference_logprobs` is None: annotate the mini-batch")
        rewards = self.beta * (inputs.logprobs - inputs.reference_logprobs).sum(1)
        losses = F.binary_cross_entropy_with_logits(rewards, inputs.advantages.amax(1), reduction="none")
        return torch.where(inputs.mask.any(1), losses, 0.0).sum() / totals.sequences, {}
