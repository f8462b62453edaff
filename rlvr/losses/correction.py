"""The weight that corrects for the engine and the policy disagreeing on the log-probs of the very same weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlvr.algorithm_settings import CorrectionConfig

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 nats, where exp is finite: an infinite ratio times a zero advantage would be NaN."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The weight of each token's policy gradient, and which tokens lie outside the bounds."""

    weight: Float[Tensor, "B L"]
    outside: Bool[Tensor, "B L"]


def correct(
    old_logprobs: Float[Tensor, "B L"],
    behavior_logprobs: Float[Tensor, "B L"],
    mask: Bool[Tensor, "B L"],
    config: CorrectionConfig,
    advantages: Float[Tensor, "B L"],
) -> Correction:
    """Return pi_old / pi_behavior per token or per sequence, bounded as the mode says; no gradient.

    token: rho_t = exp(old_t - behavior_t). sequence: rho = exp(sum over tokens of (old_t - behavior_t)), the same for all its tokens.
    truncate: min(max(rho, low), high). mask: rho where low <= rho <= high, else 0.
    clip: 0 where rho > high and the advantage is positive, or rho < low and it is negative; else min(rho, truncate_at). Sources at
    `CorrectionConfig`.

    Example: token ratios 0.5, 4 with bounds 0 and 2: truncate gives 0.5, 2; mask gives 0.5, 0. As one sequence rho = 2: both give 2, 2.
    Ratios 0.5, 0.5, 1.5, 1.5 with advantages 1, -1, 1, -1 and bounds 0.8 and 1.2: clip gives 0.5, 0, 0, 1.5.
    """
    difference = torch.where(mask, old_logprobs - behavior_logprobs, 0.0).detach()
    if config.level == "sequence":
        difference = difference.sum(-1, keepdim=True).expand_as(difference)
    ratio = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    below, above = ratio < config.low, ratio > config.high
    if config.mode == "truncate":
        return Correction(ratio.clamp(config.low, config.high), (below | above) & mask)
    if config.mode == "mask":
        outside = below | above
        return Correction(torch.where(outside, 0.0, ratio), outside & mask)
    outside = (above & (advantages > 0)) | (below & (advantages < 0))
    return Correction(torch.where(outside, 0.0, ratio.clamp(max=config.truncate_at)), outside & mask)
