"""The per-token policy-gradient losses. None averages (`aggregate` does), none adds KL or entropy (`PolicyObjective` does).

All values outside the mask arrive as zero. r_t = pi(o_t) / pi_old(o_t) is the ratio; at a first update `old_logprobs` are the detached
`logprobs` and r_t is exactly 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from rlvr.algorithm_settings import AlgorithmSettings
from rlvr.algorithms import SapoConfig
from rlvr.batch import LossInputs, LossOutput
from rlvr.losses.correction import MAX_LOG_RATIO

LossFn = Callable[[LossInputs, AlgorithmSettings], LossOutput]


def clipped_surrogate(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    """Raise the probability of what was better than expected, as long as the ratio stays in its range.

    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A); with `clip_dual` c and A < 0 at most -c A. PPO arXiv:1707.06347, GRPO
    arXiv:2402.03300; the two bounds arXiv:2503.14476 (clip-higher), c arXiv:1912.09729.

    Example: clip 0.2 / 0.28. r = 1.5, A = 1: -1.28, no gradient. r = 1.5, A = -1: 1.5. r = 5, A = -1, c = 3: 3, no gradient.
    """
    return _surrogate(log_ratio(inputs).exp(), inputs.advantages, config)


def gspo(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    """Clip one ratio a sequence: the geometric mean of its tokens' ratios.

    s = exp(mean over tokens of log r_t); token t's loss is the clipped surrogate with s_t = sg[s] * pi(o_t) / sg[pi(o_t)], whose value
    is s and whose gradient, averaged over the sequence, is that of s. GSPO arXiv:2507.18071, equations 5-7, and GSPO-token, section 4.3.

    Example: token ratios 2 and 0.5 have s = 1, so nothing is clipped.
    """
    ratios = log_ratio(inputs)
    mean = _sequence_mean(ratios, inputs)
    return _surrogate((mean.detach() + (ratios - ratios.detach())).exp(), inputs.advantages, config)


def reinforce(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    """Weigh each token's log-prob with its advantage.

    -A log pi(o_t). Williams 1992; RLOO arXiv:2402.14740, ReMax arXiv:2310.10505, OPO arXiv:2505.23585, GPG arXiv:2504.02546. It knows no
    ratio: meant for one update a batch.

    Example: log pi = -0.5, A = 2: 1, gradient -2.
    """
    return LossOutput(-inputs.advantages * inputs.logprobs, _ratio_stats(log_ratio(inputs).exp()))


def cispo(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    """Weigh each token's log-prob with its advantage and a clipped importance weight; a clipped token keeps its gradient.

    -sg[clip(r, 1 - clip_low, 1 + clip_high)] A log pi(o_t). CISPO, MiniMax-M1 arXiv:2506.13585, equations 4-5.

    Example: r = 8, clip_high = 4, A = 1, log pi = -0.5: weight 5, loss 2.5, gradient -5.
    """
    ratio = log_ratio(inputs).exp()
    lower, upper = _bounds(config)
    weight = ratio.clamp(lower, upper).detach()
    low, high = ratio.detach() < lower, ratio.detach() > upper
    stats = _ratio_stats(ratio) | {"clip_low_share": low.float(), "clip_high_share": high.float(), "clip_share": (low | high).float()}
    return LossOutput(-weight * inputs.advantages * inputs.logprobs, stats)


def sapo(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    """Fade a token's gradient out as its ratio leaves 1, faster where the advantage is negative.

    -f(r) A with f(r) = sigmoid(tau (r - 1)) * 4 / tau; tau = gate_positive where A > 0, else gate_negative. f'(1) = 1. SAPO
    arXiv:2511.20347, equations 5-6.

    Example: r = 1, A = 1, tau = 1: f = 0.5 * 4 = 2, loss -2, gradient -1.
    """
    if not isinstance(config, SapoConfig):
        raise ValueError(
            f"loss sapo reads gate_positive and gate_negative, which algorithm {type(config).__name__} does not have: use sapo"
        )
    ratio = log_ratio(inputs).exp()
    gate = torch.where(inputs.advantages > 0, config.gate_positive, config.gate_negative)
    return LossOutput(-torch.sigmoid(gate * (ratio - 1)) * (4 / gate) * inputs.advantages, _ratio_stats(ratio))


def gmpo(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    """Maximise the geometric mean of a sequence's ratios, each clipped in log space.

    -A exp(mean over tokens of l_t), where l_t is log r_t clipped pessimistically to [-clip_low, clip_high]: min(log r, clip) where A > 0,
    max where A < 0. GMPO arXiv:2507.20673, section 3. Every token carries the sequence's value, so the sequence mean is the paper's loss.

    Example: clip 0.4; log-ratios 0.2 and 1.0 with A = 1 become 0.2 and 0.4: -exp(0.3) = -1.350; with A = -1 they stay: exp(0.6) = 1.822.
    """
    if config.clip_low is None or config.clip_high is None:
        raise ValueError("loss gmpo needs clip_low and clip_high")
    ratios = log_ratio(inputs)
    clipped = ratios.clamp(-config.clip_low, config.clip_high)
    pessimistic = torch.where(inputs.advantages > 0, torch.minimum(ratios, clipped), torch.maximum(ratios, clipped))
    value = _sequence_mean(pessimistic, inputs).exp()
    stats = _ratio_stats(ratios.exp()) | _clip_stats(ratios, inputs.advantages, -config.clip_low, config.clip_high)
    return LossOutput(-inputs.advantages * value, stats)


def cross_entropy(inputs: LossInputs) -> LossOutput:
    """Learn given tokens: -log pi(o_t), the supervised and the pre-training loss.

    Example: a token of probability 0.5 costs 0.693 nats.
    """
    return LossOutput(-inputs.logprobs, {"cross_entropy": -inputs.logprobs.detach()})


def log_ratio(inputs: LossInputs) -> Float[Tensor, "B L"]:
    """Return log pi - log pi_old per token, within +-20 nats."""
    return (inputs.logprobs - inputs.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _surrogate(ratio: Float[Tensor, "B L"], advantages: Float[Tensor, "B L"], config: AlgorithmSettings) -> LossOutput:
    lower, upper = _bounds(config)
    objective = torch.minimum(ratio * advantages, ratio.clamp(lower, upper) * advantages)
    stats = _ratio_stats(ratio) | _clip_stats(ratio, advantages, lower, upper)
    if config.clip_dual is not None:
        objective = torch.where(advantages < 0, torch.maximum(objective, config.clip_dual * advantages), objective)
        stats["clip_dual_share"] = ((ratio > config.clip_dual) & (advantages < 0)).float()
    return LossOutput(-objective, stats)


def _bounds(config: AlgorithmSettings) -> tuple[float, float]:
    if config.clip_low is None or config.clip_high is None:
        raise ValueError(f"loss {config.loss} needs clip_low and clip_high, got {config.clip_low} and {config.clip_high}")
    return 1 - config.clip_low, 1 + config.clip_high


def _sequence_mean(values: Float[Tensor, "B L"], inputs: LossInputs) -> Float[Tensor, "B 1"]:
    kept = torch.where(inputs.mask, values, 0.0)
    return kept.sum(-1, keepdim=True) / inputs.mask.sum(-1, keepdim=True).clamp(min=1)


def _ratio_stats(ratio: Float[Tensor, "B L"]) -> dict[str, Tensor]:
    ratio = ratio.detach()
    return {"ratio": ratio, "ratio_max": ratio}


def _clip_stats(value: Tensor, advantages: Tensor, lower: float, upper: float) -> dict[str, Tensor]:
    """Tell where the clip takes the gradient away: below with a negative advantage, above with a positive one."""
    low, high = (value < lower) & (advantages < 0), (value > upper) & (advantages > 0)
    return {"clip_low_share": low.float(), "clip_high_share": high.float(), "clip_share": (low | high).float()}
