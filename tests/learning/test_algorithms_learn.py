"""Algorithms learn: from a fixed warmed-up model and seed, accuracy on held-out problems ends inside a measured band.

The lower end catches a loss that no longer teaches; the upper end catches a test that has become too easy, or held-out problems that
leaked into training. The bands allow for other processors, whose rounding makes another warm-up and other draws of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rlvr.algorithm_settings import KlConfig, VineConfig
from rlvr.algorithms import AlgorithmConfig, DapoConfig, GrpoConfig, RlooConfig, VinePpoConfig
from rlvr.config import HeldOutConfig, RunConfig, TrackingConfig
from rlvr.run import TrainResult, train

NUM_STEPS = 40


@dataclass(frozen=True, slots=True)
class Band:
    """Where held-out accuracy must end."""

    greedy: tuple[float, float]
    sampled: tuple[float, float]


NO_KL = KlConfig(coefficient=0.0)
ALGORITHMS: dict[str, AlgorithmConfig] = {
    "grpo": GrpoConfig(kl=NO_KL),
    # Completions are a third of the limit, so the punishment of long ones stays idle; it has its own tests.
    "dapo": DapoConfig(),
    "rloo": RlooConfig(kl=NO_KL),
    # A column of the sum is a step.
    "vineppo": VinePpoConfig(kl=NO_KL, vine=VineConfig(separator=" ", num_rollouts=4)),
}
# Measured on 2026-11-21, AMD EPYC with bfloat16, one thread, seeds 1 and 2 of the reinforcement, greedy / sampled; the warm-up leaves 0.30
# to 0.37 sampled. After a warm-up at 2e-3 until 30 % were solved: grpo 0.952, 0.970 / 0.75, 0.73; dapo 0.970, 0.954 / 0.77, 0.74;
# rloo 0.974, 0.966 / 0.77, 0.76. After one at 1e-3 until 25 %: grpo 0.972, 0.986 / 0.60, 0.62; dapo 0.990, 0.970 / 0.64, 0.62;
# rloo 0.980, 0.978 / 0.64, 0.61. The warm-up now runs at 2e-3 until 25 %.
# vineppo, seed 1 alone: 0.996 / 0.64, where the warm-up left 0.69 / 0.38; its greedy end is too near 1 for an upper bound.
BANDS = {name: Band(greedy=(0.85, 0.998), sampled=(0.5, 0.88)) for name in ALGORITHMS}
BANDS["vineppo"] = Band(greedy=(0.85, 1.0), sampled=(0.5, 0.85))


def learn(prepared: RunConfig, algorithm: str, folder: Path, *, seed: int) -> TrainResult:
    """Take `NUM_STEPS` steps from the warmed-up model."""
    assert prepared.held_out.data is not None
    config = prepared.model_copy(
        update={
            "name": algorithm,
            "runs_folder": str(folder),
            "seed": seed,
            "num_steps": NUM_STEPS,
            "algorithm": ALGORITHMS[algorithm],
            "held_out": HeldOutConfig(data=prepared.held_out.data),
            "tracking": TrackingConfig(sinks=[], rollouts_every=0),
        }
    )
    return train(config)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_held_out_accuracy_ends_inside_the_measured_band(algorithm: str, prepared: RunConfig, tmp_path: Path) -> None:
    result = learn(prepared, algorithm, tmp_path, seed=prepared.seed)
    assert result.first is not None and result.last is not None
    band = BANDS[algorithm]
    assert result.first.sampled_accuracy < 0.5, "the warm-up left too little to learn"
    assert band.sampled[0] <= result.last.sampled_accuracy <= band.sampled[1]
    assert band.greedy[0] <= result.last.greedy_accuracy <= band.greedy[1]
