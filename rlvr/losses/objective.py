"""The objectives a policy minimises: policy gradient with KL and entropy, and cross-entropy on given tokens.

Each fulfils `rlvr.policy.protocol.Objective`. What stands outside the mask is replaced by zero before anything is computed from it, so a
NaN there reaches neither the value nor a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from rlvr.algorithm_settings import CLIPPING_LOSSES, PLAIN_LOSSES, Aggregation, AlgorithmSettings, CorrectionConfig
from rlvr.batch import LossInputs, Totals
from rlvr.losses.aggregation import aggregate
from rlvr.losses.correction import correct
from rlvr.losses.policy_gradient import LossFn, cross_entropy, log_ratio
from rlvr.registries import LOSSES
from rlvr.rewards import kl_estimate


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """token loss * correction weight + kl_coefficient * KL(policy || reference) - entropy_coefficient * entropy, aggregated.

    `kl_coefficient` is the one in force in the loss: 0 where the KL is in the reward; `correction` None where engine and policy are one.
    """

    config: AlgorithmSettings
    loss: LossFn
    kl_coefficient: float
    correction: CorrectionConfig | None = None

    @property
    def needs_entropy(self) -> bool:
        """Whether the entropy must come with a gradient."""
        return self.config.entropy_coefficient != 0

    @property
    def needs_reference(self) -> bool:
        """Whether the loss looks at the reference's log-probs."""
        return self.kl_coefficient > 0

    @property
    def skips_zero_advantage(self) -> bool:
        """Whether sequences whose advantages are all zero contribute a gradient of exactly zero, and may be left out of the forward.

        Totals still count them. A loss that is not built in is not trusted with it.
        """
        built_in = self.config.loss in CLIPPING_LOSSES | PLAIN_LOSSES
        return built_in and not self.needs_entropy and not self.needs_reference

    def __call__(self, inputs: LossInputs, totals: Totals) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the micro-batch's share of the objective and per-token statistics [B, L], detached."""
        inputs = zero_outside_mask(inputs)
        output = self.loss(inputs, self.config)
        token_loss, stats = output.token_loss, dict(output.stats)
        if token_loss.shape != inputs.mask.shape:
            raise ValueError(
                f"loss {self.config.loss} returned the shape {list(token_loss.shape)}, not one value a token {list(inputs.mask.shape)}"
            )
        stats["behavior_gap"] = (inputs.old_logprobs - inputs.behavior_logprobs).abs()
        stats["approx_kl"] = kl_estimate(inputs.old_logprobs, inputs.logprobs.detach(), "k3")
        if self.correction is not None:
            correction = correct(inputs.old_logprobs, inputs.behavior_logprobs, inputs.mask, self.correction, inputs.advantages)
            token_loss = token_loss * correction.weight
            stats |= {"correction_weight": correction.weight, "correction_outside_share": correction.outside.float()}
            stats["correction_weight_max"] = correction.weight
        if inputs.reference_logprobs is not None:
            stats["reference_kl"] = kl_estimate(inputs.logprobs.detach(), inputs.reference_logprobs, "k3")
        if self.needs_reference:
            token_loss = token_loss + self.kl_coefficient * self._reference_kl(inputs)
        if inputs.entropy is not None:
            stats["entropy"] = inputs.entropy.detach()
        if self.needs_entropy:
            token_loss = token_loss - self.config.entropy_coefficient * _given(inputs.entropy, "entropy_coefficient", "entropy")
        return aggregate(token_loss, inputs.mask, totals, self.config.aggregation), stats

    def _reference_kl(self, inputs: LossInputs) -> Float[Tensor, "B L"]:
        reference = _given(inputs.reference_logprobs, "kl.coefficient", "reference_logprobs")
        estimate = kl_estimate(inputs.logprobs, reference, self.config.kl.estimator)
        return estimate * log_ratio(inputs).exp() if self.config.kl.weigh_by_ratio else estimate


@dataclass(frozen=True, slots=True)
class CrossEntropyObjective:
    """Cross-entropy on given tokens, for supervised fine-tuning and as a mix beside the policy gradient."""

    aggregation: Aggregation = "token_mean"
    needs_entropy: bool = False
    needs_reference: bool = False
    skips_zero_advantage: bool = False

    def __call__(self, inputs: LossInputs, totals: Totals) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the micro-batch's share of the objective and per-token statistics [B, L], detached."""
        output = cross_entropy(zero_outside_mask(inputs))
        return aggregate(output.token_loss, inputs.mask, totals, self.aggregation), output.stats


def build_objective(config: AlgorithmSettings, kl_coefficient: float | None = None, *, off_policy: bool = False) -> PolicyObjective:
    """Return the algorithm's objective. `kl_coefficient` is the controller's where that is adaptive; None is the configured one.

    `off_policy`: whether the engine that sampled may differ from the policy before the step, in weights or in arithmetic.

    Raises: RegistryError: no such loss.
    """
    coefficient = config.kl.coefficient if kl_coefficient is None else kl_coefficient
    correction = config.correction if off_policy or (config.correction and config.correction.when == "always") else None
    return PolicyObjective(config, _loss_of(config.loss), coefficient if config.kl.where == "loss" else 0.0, correction)


def zero_outside_mask(inputs: LossInputs) -> LossInputs:
    """Return the inputs with zero wherever the mask is False; the gradient there is exactly zero, whatever stood there."""

    def keep(values: Tensor) -> Tensor:
        return torch.where(inputs.mask, values, 0.0)

    return replace(
        inputs,
        logprobs=keep(inputs.logprobs),
        old_logprobs=keep(inputs.old_logprobs),
        behavior_logprobs=keep(inputs.behavior_logprobs),
        reference_logprobs=None if inputs.reference_logprobs is None else keep(inputs.reference_logprobs),
        advantages=keep(inputs.advantages),
        entropy=None if inputs.entropy is None else keep(inputs.entropy),
    )


@cache
def _loss_of(name: str) -> LossFn:
    # An objective is built every step, and asking the installed packages takes 7 ms.
    return LOSSES.get(name)


def _given(values: Tensor | None, setting: str, name: str) -> Tensor:
    if values is None:
        raise ValueError(f"{setting} is not zero, so the objective needs `{name}`, which is None: ask for it when the update is built")
    return values
