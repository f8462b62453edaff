"""Per-token losses, the one way they are averaged, and the objectives the policy minimises. Pure torch functions of `LossInputs`."""

from rlvr.losses.aggregation import aggregate
from rlvr.losses.correction import Correction, correct
from rlvr.losses.implicit_reward import ImplicitRewardObjective
from rlvr.losses.objective import CrossEntropyObjective, PolicyObjective, build_objective
from rlvr.losses.policy_gradient import LossFn, cispo, clipped_surrogate, cross_entropy, gmpo, gspo, log_ratio, reinforce, sapo

__all__ = [
    "Correction",
    "CrossEntropyObjective",
    "ImplicitRewardObjective",
    "LossFn",
    "PolicyObjective",
    "aggregate",
    "build_objective",
    "cispo",
    "clipped_surrogate",
    "correct",
    "cross_entropy",
    "gmpo",
    "gspo",
    "log_ratio",
    "reinforce",
    "sapo",
]
