"""Guards against silently learning nothing: warn at once, stop the run when the fault lasts.

Each guard looks at one step's metrics. What is harmful rather than useless (a loss that is not finite) stops at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rlvr.config import GuardConfig
from rlvr.errors import EntropyCollapse, LogprobDrift, NoLearningSignal, NonFinite, RewardHacked, TooManyVerifierFailures, TrainingStopped
from rlvr.tracking.names import AUDIT_GAP, AUDITED_SHARE


@dataclass(frozen=True, slots=True)
class Guard:
    """One condition on a step's metrics. `message` may use `{value}`; `patience` 1 stops at the first offence."""

    metric: str
    offends: Callable[[float], bool]
    error: type[TrainingStopped]
    message: str
    patience: int


def build_guards(config: GuardConfig, *, compares_within_group: bool = True) -> tuple[Guard, ...]:
    """The guards of a run. Equal rewards within a group are a fault only where the algorithm compares within the group."""
    patience = config.patience
    guards = (
        Guard("policy/loss", lambda v: not math.isfinite(v), NonFinite, "the loss is {value}", 1),
        Guard("policy/grad_norm", lambda v: not math.isfinite(v), NonFinite, "the gradient norm is {value}; no step was taken", 1),
        Guard(
            "groups/zero_variance_share",
            lambda v: v >= config.max_zero_variance_share,
            NoLearningSignal,
            "in {value:.0%} of the groups all completions have the same reward, so they teach nothing (guards.max_zero_variance_share="
            f"{config.max_zero_variance_share:g}): the problems are too hard, too easy, or the answer format is never met; see `rlvr show`",
            patience,
        ),
        Guard(
            "completion/truncated_share",
            lambda v: v >= config.max_truncated_share,
            NoLearningSignal,
            "{value:.0%} of the completions were cut at sampling.max_new_tokens before they ended (guards.max_truncated_share="
            f"{config.max_truncated_share:g}): raise sampling.max_new_tokens",
            patience,
        ),
        Guard(
            "advantage/zero_share",
            lambda v: v >= 1.0,
            NoLearningSignal,
            "all advantages are zero: the update changes nothing; the verifier gives every completion the same score",
            patience,
        ),
        Guard(
            "policy/entropy",
            lambda v: v < config.min_entropy,
            EntropyCollapse,
            f"the entropy fell to {{value:.2g}} nats per token (guards.min_entropy={config.min_entropy:g}): the policy no longer explores; "
            "lower optimizer.learning_rate, raise algorithm.clip_high, or add algorithm.entropy_coefficient",
            patience,
        ),
        Guard(
            "engine/logprob_drift",
            lambda v: v > config.max_logprob_drift,
            LogprobDrift,
            f"engine and policy log-probs of the same tokens differ by {{value:.3g}} nats on average (guards.max_logprob_drift="
            f"{config.max_logprob_drift:g}): the engine samples from other weights or another distribution than the policy learns",
            patience,
        ),
    )
    if config.max_audit_gap is not None:
        gap = config.max_audit_gap
        guards += (
            Guard(
                AUDITED_SHARE,
                lambda v: v == 0,
                TooManyVerifierFailures,
                f"the auditor judged no completion, so that guards.max_audit_gap={gap:g} guards nothing: see what it says to some of them "
                "(`rlvr verify`), or give it more time (auditor_seconds)",
                patience,
            ),
            Guard(
                AUDIT_GAP,
                lambda v: v > gap,
                RewardHacked,
                f"the mean score stands {{value:.2f}} above the auditor's (guards.max_audit_gap={gap:g}): the policy learns what the "
                "verifier pays and the auditor does not hold for right; see `rlvr show`, and mend the verifier",
                patience,
            ),
        )
    return tuple(guard for guard in guards if compares_within_group or guard.metric != "groups/zero_variance_share")


class GuardState:
    """Counts, for each guard, the steps in a row that offended it; part of a checkpoint."""

    def __init__(self, config: GuardConfig, offences: Mapping[str, int] | None = None, *, compares_within_group: bool = True) -> None:
        self._guards = build_guards(config, compares_within_group=compares_within_group)
        self.offences: dict[str, int] = dict(offences or {})

    def check(self, metrics: Mapping[str, float]) -> list[str]:
        """Return a warning for each guard that begins to be offended.

        Raises: TrainingStopped: a guard was offended `patience` steps in a row.
        """
        warnings = []
        for guard in self._guards:
            if guard.metric not in metrics:
                continue
            value = metrics[guard.metric]
            if not guard.offends(value):
                self.offences.pop(guard.metric, None)
                continue
            count = self.offences[guard.metric] = self.offences.get(guard.metric, 0) + 1
            message = guard.message.format(value=value)
            if count >= guard.patience:
                lasting = f", for {count} steps in a row (guards.patience)" if guard.patience > 1 else ""
                raise guard.error(message + lasting)
            if count == 1:
                warnings.append(f"{message}; the run stops if this lasts {guard.patience} steps")
        return warnings
