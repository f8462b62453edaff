"""Algorithms learn: from a fixed warmed-up model and seed, accuracy on held-out problems ends inside a measured band.

The lower end catches a loss that no longer teaches; the upper end catches a test that has become too easy, or held-out problems that
leaked into training. The bands allow for other processors, whose rounding makes another warm-up and other draws of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rlvr.algorithms import AlgorithmConfig, DapoConfig, GrpoConfig, KlConfig, RlooConfig
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
}
BANDS = {
    # Measured on 2026-11-21, AMD EPYC with bfloat16, one thread; from 0.62 greedy and 0.30 to 0.34 sampled after the warm-up, seeds 1 and 2
    # of the reinforcement. Greedy 0.972, 0.986; sampled 0.60, 0.62.
    # After a warm-up at 2e-3 to 0.30: 0.952 to 0.974 greedy, 0.73 to 0.77 sampled.
    "grpo": Band(greedy=(0.85, 0.998), sampled=(0.5, 0.88)),
    # Greedy 0.990, 0.970; sampled 0.64, 0.62.
    "dapo": Band(greedy=(0.85, 0.998), sampled=(0.5, 0.88)),
    # Greedy 0.980, 0.978; sampled 0.64, 0.61.
    "rloo": Band(greedy=(0.85, 0.998), sampled=(0.5, 0.88)),
}


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


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "rloo"])
def test_held_out_accuracy_ends_inside_the_measured_band(algorithm: str, prepared: RunConfig, tmp_path: Path) -> None:
    result = learn(prepared, algorithm, tmp_path, seed=prepared.seed)
    assert result.first is not None and result.last is not None
    band = BANDS[algorithm]
    assert result.first.sampled_accuracy < 0.5, "the warm-up left too little to learn"
    assert band.sampled[0] <= result.last.sampled_accuracy <= band.sampled[1]
    assert band.greedy[0] <= result.last.greedy_accuracy <= band.greedy[1]
