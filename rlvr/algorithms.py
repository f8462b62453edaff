"""Algorithms as vetted bundles: a name selects a class whose defaults are its paper's; a field that is set is visibly the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rlvr.algorithm_settings import IMPLICIT_ADVANTAGE, Aggregation, AlgorithmSettings, KlConfig, OverlongConfig


def _over(default: KlConfig) -> BeforeValidator:
    """Let a partial mapping override an algorithm's own values field by field, instead of falling back to `KlConfig`'s."""
    return BeforeValidator(lambda value: {**default.model_dump(), **value} if isinstance(value, Mapping) else value)


GRPO_KL = KlConfig(coefficient=0.04)  # arXiv:2402.03300, section 4.2
REWARD_KL = KlConfig(estimator="k1", where="reward")
REINFORCE_PP_KL = KlConfig(coefficient=0.001, estimator="k1", where="reward")  # arXiv:2501.03262, for mathematics; 0.01 for chat
REINFORCE_PP_BASELINE_KL = KlConfig(coefficient=0.001, estimator="k2")  # k2 in the loss, arXiv:2501.03262
VINEPPO_KL = KlConfig(coefficient=1e-4)  # github.com/McGill-NLP/VinePPO, configs/trainers/refKl0.0001.jsonnet and klLoss.jsonnet


class GrpoConfig(AlgorithmSettings):
    """Group relative policy optimization, arXiv:2402.03300."""

    name: Literal["grpo"] = "grpo"
    advantage: str = "group_zscore"
    loss: str = "clipped_surrogate"
    aggregation: Aggregation = "sequence_mean"
    clip_low: float | None = Field(0.2, ge=0)
    clip_high: float | None = Field(0.2, ge=0)
    kl: Annotated[KlConfig, _over(GRPO_KL)] = GRPO_KL


class DrGrpoConfig(GrpoConfig):
    """GRPO without its two biases: no division by the group's spread nor by a completion's length, arXiv:2503.20783."""

    name: Literal["dr_grpo"] = "dr_grpo"
    advantage: str = "group_centred"
    aggregation: Aggregation = "constant"
    kl: KlConfig = KlConfig()


class DapoConfig(GrpoConfig):
    """Clip-higher, dynamic sampling, token-level loss and soft overlong punishment, arXiv:2503.14476; each is one field."""

    name: Literal["dapo"] = "dapo"
    aggregation: Aggregation = "token_mean"
    clip_high: float | None = Field(0.28, ge=0)
    kl: KlConfig = KlConfig()
    informative_groups_only: bool = True
    overlong: OverlongConfig | None = OverlongConfig()


class RlooConfig(AlgorithmSettings):
    """REINFORCE with a leave-one-out baseline, arXiv:2402.14740."""

    name: Literal["rloo"] = "rloo"
    advantage: str = "leave_one_out"
    loss: str = "reinforce"
    aggregation: Aggregation = "sequence_sum"
    kl: Annotated[KlConfig, _over(REWARD_KL)] = REWARD_KL


class ReinforcePpConfig(GrpoConfig):
    """REINFORCE++: the reward to go, whitened over the whole batch, arXiv:2501.03262; group size 1 is enough."""

    name: Literal["reinforce_pp"] = "reinforce_pp"
    advantage: str = "raw_reward"
    aggregation: Aggregation = "token_mean"
    kl: Annotated[KlConfig, _over(REINFORCE_PP_KL)] = REINFORCE_PP_KL
    batch_scaling: Literal["none", "whiten", "informative_share"] = "whiten"


class ReinforcePpBaselineConfig(ReinforcePpConfig):
    """REINFORCE++ with the group's mean reward as baseline, arXiv:2501.03262."""

    name: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"
    advantage: str = "group_centred"
    kl: Annotated[KlConfig, _over(REINFORCE_PP_BASELINE_KL)] = REINFORCE_PP_BASELINE_KL


class GspoConfig(GrpoConfig):
    """One clipped ratio a sequence, arXiv:2507.18071; the clip range is that of its section 5.1."""

    name: Literal["gspo"] = "gspo"
    loss: str = "gspo"
    clip_low: float | None = Field(3e-4, ge=0)
    clip_high: float | None = Field(4e-4, ge=0)
    kl: KlConfig = KlConfig()


class CispoConfig(GrpoConfig):
    """REINFORCE under a clipped importance weight without gradient, arXiv:2506.13585.

    The paper sets no lower bound and leaves the upper one open; 5 is the value of arXiv:2510.13786.
    """

    name: Literal["cispo"] = "cispo"
    loss: str = "cispo"
    aggregation: Aggregation = "token_mean"
    clip_low: float | None = Field(1.0, ge=0)
    clip_high: float | None = Field(4.0, ge=0)
    kl: KlConfig = KlConfig()


class RemaxConfig(AlgorithmSettings):
    """REINFORCE with the greedy completion's reward as baseline, arXiv:2310.10505; group size 1 is enough."""

    name: Literal["remax"] = "remax"
    advantage: str = "greedy_baseline"
    loss: str = "reinforce"
    aggregation: Aggregation = "sequence_sum"
    kl: Annotated[KlConfig, _over(REWARD_KL)] = REWARD_KL


class OpoConfig(AlgorithmSettings):
    """Strictly on-policy REINFORCE with the variance-optimal, length-weighted baseline, arXiv:2505.23585."""

    name: Literal["opo"] = "opo"
    advantage: str = "optimal_baseline"
    loss: str = "reinforce"
    aggregation: Aggregation = "sequence_sum"


class GpgConfig(AlgorithmSettings):
    """Group policy gradient: centred rewards, corrected for the groups that carry no gradient, arXiv:2504.02546."""

    name: Literal["gpg"] = "gpg"
    advantage: str = "group_centred"
    loss: str = "reinforce"
    aggregation: Aggregation = "token_mean"
    batch_scaling: Literal["none", "whiten", "informative_share"] = "informative_share"


class SapoConfig(AlgorithmSettings):
    """A soft gate in place of the clip, arXiv:2511.20347."""

    name: Literal["sapo"] = "sapo"
    advantage: str = "group_zscore"
    loss: str = "sapo"
    aggregation: Aggregation = "sequence_mean"
    gate_positive: float = Field(1.0, gt=0)
    """Temperature of the gate where the advantage is positive."""
    gate_negative: float = Field(1.05, gt=0)
    """Temperature elsewhere; larger closes faster."""


class GmpoConfig(GrpoConfig):
    """The geometric mean of a completion's ratios, each clipped in log space to (e^-0.4, e^0.4), arXiv:2507.20673."""

    name: Literal["gmpo"] = "gmpo"
    loss: str = "gmpo"
    clip_low: float | None = Field(0.4, ge=0)
    clip_high: float | None = Field(0.4, ge=0)
    kl: KlConfig = KlConfig()


class VinePpoConfig(GrpoConfig):
    """PPO with Monte-Carlo values of the steps in the place of a value network, arXiv:2410.01679.

    Clip, averaging, whitening and KL are those of github.com/McGill-NLP/VinePPO. Its KL is summed over a completion's tokens and averaged
    over completions; here it is averaged as the loss is, over tokens.
    """

    name: Literal["vineppo"] = "vineppo"
    advantage: str = "vine"
    aggregation: Aggregation = "token_mean"
    kl: Annotated[KlConfig, _over(VINEPPO_KL)] = VINEPPO_KL
    batch_scaling: Literal["none", "whiten", "informative_share"] = "whiten"


class PrimeConfig(GrpoConfig):
    """Process rewards from a model that learns them online, from outcomes alone, arXiv:2502.01456.

    With the paper's 4 completions a prompt its filter, an accuracy from 0.2 to 0.8, keeps the groups whose outcomes differ. The paper
    leaves the clip range open; 0.2 is its code's.
    """

    name: Literal["prime"] = "prime"
    advantage: str = IMPLICIT_ADVANTAGE
    aggregation: Aggregation = "token_mean"
    kl: KlConfig = KlConfig()
    informative_groups_only: bool = True


AlgorithmConfig = Annotated[
    GrpoConfig
    | DrGrpoConfig
    | DapoConfig
    | RlooConfig
    | ReinforcePpConfig
    | ReinforcePpBaselineConfig
    | GspoConfig
    | CispoConfig
    | RemaxConfig
    | OpoConfig
    | GpgConfig
    | SapoConfig
    | GmpoConfig
    | VinePpoConfig
    | PrimeConfig,
    Field(discriminator="name"),
]
