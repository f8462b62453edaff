"""From a per-token loss to the scalar that is minimised: divided by totals known before the first forward, not by the micro-batch."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlvr.algorithm_settings import Aggregation
from rlvr.batch import Totals


def aggregate(token_loss: Float[Tensor, "B L"], mask: Bool[Tensor, "B L"], totals: Totals, how: Aggregation) -> Float[Tensor, ""]:
    """Return this micro-batch's share of the objective; shares summed over micro-batches and ranks are the objective.

    token_mean: sum over tokens / totals.tokens (DAPO arXiv:2503.14476). sequence_mean: each sequence's mean over its own tokens, summed /
    totals.sequences (GRPO arXiv:2402.03300). sequence_sum: sum over tokens / totals.sequences (REINFORCE). constant: sum over tokens /
    (totals.sequences * totals.max_new_tokens) (Dr. GRPO arXiv:2503.20783).

    Example: losses 1, 1, 1 and 5 in sequences of 3 and 1 tokens, limit 4: 8/4 = 2, (1 + 5)/2 = 3, 8/2 = 4, 8/(2 * 4) = 1.
    """
    # `where`, not a product: a NaN outside the mask times 0 is NaN.
    kept = torch.where(mask, token_loss, 0.0)
    if how == "token_mean":
        return kept.sum() / max(totals.tokens, 1)
    if how == "sequence_mean":
        return (kept.sum(-1) / mask.sum(-1).clamp(min=1)).sum() / max(totals.sequences, 1)
    if how == "sequence_sum":
        return kept.sum() / max(totals.sequences, 1)
    return kept.sum() / max(totals.sequences * totals.max_new_tokens, 1)
