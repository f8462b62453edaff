"""From verdicts to rewards: the score, what length costs, and the KL penalty with its controller.

A verdict says how good a response is; the reward also knows the limits of sampling and the distance from the reference. Baselines and
credit are in `rlvr.advantages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rlvr.algorithm_settings import OVERLONG_BUFFER_SHARE, AlgorithmSettings, KlConfig, KlEstimator, OverlongConfig
from rlvr.types import Rollout
from verifiers.length import overlong_penalty as length_penalty

SPREAD_TOLERANCE = 1e-6
"""Rewards nearer than this are equal: weighted sums of the same parts differ in their last bits only."""
MAX_KL_ERROR = 0.2  # arXiv:1909.08593, section 2.2


def shape_rewards(rollouts: Sequence[Rollout], config: AlgorithmSettings, *, max_new_tokens: int) -> list[float]:
    """Return each rollout's reward: its score less the soft overlong punishment, where that is on.

    The KL in the reward is per token and joins in `GroupRewards.token_penalties`.
    """
    rewards = [rollout.verdict.score for rollout in rollouts]
    if config.overlong is None:
        return rewards
    return [
        reward - overlong_penalty(rollout.completion.num_tokens, max_new_tokens, config.overlong)
        for reward, rollout in zip(rewards, rollouts, strict=True)
    ]


def overlong_penalty(num_tokens: int, max_new_tokens: int, config: OverlongConfig) -> float:
    """Return what a completion's length costs by `verifiers.length.overlong_penalty`, with the configured buffer or the paper's."""
    buffer = max(1, round(OVERLONG_BUFFER_SHARE * max_new_tokens)) if config.buffer_tokens is None else config.buffer_tokens
    return length_penalty(num_tokens, max_new_tokens, buffer, config.penalty)


def is_informative(rewards: Sequence[float]) -> bool:
    """Return whether the rewards differ, so that their group carries a gradient (DAPO arXiv:2503.14476, equation 11)."""
    return max(rewards) - min(rewards) > SPREAD_TOLERANCE


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, estimator: KlEstimator) -> Tensor:
    """Return each token's estimate of KL(policy || reference), nats, from tokens the policy sampled; any shape.

    With d = log pi - log pi_ref: k1 = d; k2 = d^2 / 2; k3 = exp(-d) - 1 + d. http://joschu.net/blog/kl-approx.html. k1 and k3 have the KL
    as their mean; k2 and k3 are never negative.

    Example: d = ln 2: k1 = 0.693, k2 = 0.240, k3 = 0.5 - 1 + 0.693 = 0.193.
    """
    difference = logprobs - reference_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    return (-difference).expm1() + difference


def kl_token_penalties(logprobs: Tensor, reference_logprobs: Tensor, *, coefficient: float, estimator: KlEstimator) -> Tensor:
    """Return what each token of one completion costs in the reward, for `GroupRewards.token_penalties`; [length], no gradient."""
    return coefficient * kl_estimate(logprobs.detach().float(), reference_logprobs.detach().float(), estimator)


@dataclass(frozen=True, slots=True)
class KlController:
    """The KL coefficient in force. A value: `update` returns the next one, so a checkpoint only stores `coefficient`."""

    coefficient: float
    adaptive: bool = False
    target: float = 6.0
    horizon: int = 10_000

    @classmethod
    def from_config(cls, config: KlConfig) -> KlController:
        """Start at the configured coefficient."""
        return cls(config.coefficient, config.controller == "adaptive", config.target, config.horizon)

    def update(self, observed_kl: float, num_completions: int) -> KlController:
        """Return the controller after `num_completions` whose mean KL was `observed_kl` nats per completion.

        e = clip(kl / target - 1, -0.2, 0.2); coefficient *= 1 + e * num_completions / horizon. arXiv:1909.08593, section 2.2. A fixed
        controller stays as it is.

        Example: coefficient 0.1, target 6, horizon 1000: 12 nats over 100 completions give 0.1 * (1 + 0.2 * 0.1) = 0.102.
        """
        if not self.adaptive:
            return self
        error = min(max(observed_kl / self.target - 1, -MAX_KL_ERROR), MAX_KL_ERROR)
        return KlController(self.coefficient * (1 + error * num_completions / self.horizon), True, self.target, self.horizon)
