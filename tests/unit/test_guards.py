"""Guards warn once, stop when a fault lasts, and forget when it passes."""

from __future__ import annotations

import math

import pytest

from rlvr.algorithms import GrpoConfig, ReinforcePpConfig, RemaxConfig
from rlvr.config import GuardConfig
from rlvr.errors import EntropyCollapse, LogprobDrift, NoLearningSignal, NonFinite
from rlvr.guards import GuardState

HEALTHY = {
    "policy/loss": 0.1,
    "policy/grad_norm": 1.0,
    "groups/zero_variance_share": 0.5,
    "completion/truncated_share": 0.1,
    "advantage/zero_share": 0.5,
    "policy/entropy": 0.4,
    "engine/logprob_drift": 0.001,
}


def test_a_healthy_step_warns_of_nothing():
    guards = GuardState(GuardConfig(patience=2))
    assert [guards.check(HEALTHY) for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize(
    ("metric", "value", "error", "message"),
    [
        ("groups/zero_variance_share", 1.0, NoLearningSignal, "in 100% of the groups all completions have the same reward"),
        ("completion/truncated_share", 0.95, NoLearningSignal, "95% of the completions were cut at sampling.max_new_tokens"),
        ("advantage/zero_share", 1.0, NoLearningSignal, "all advantages are zero"),
        ("policy/entropy", 1e-4, EntropyCollapse, "the entropy fell to 0.0001 nats"),
        ("engine/logprob_drift", 0.5, LogprobDrift, "differ by 0.5 nats"),
    ],
)
def test_a_lasting_fault_warns_once_and_stops_after_patience(metric, value, error, message):
    guards = GuardState(GuardConfig(patience=3))
    ill = {**HEALTHY, metric: value}
    assert len(guards.check(ill)) == 1
    assert guards.check(ill) == []
    with pytest.raises(error, match=f"{message}.*3 steps in a row"):
        guards.check(ill)


def test_a_fault_that_passes_is_forgotten():
    guards = GuardState(GuardConfig(patience=2))
    ill = {**HEALTHY, "advantage/zero_share": 1.0}
    for _ in range(5):
        assert len(guards.check(ill)) == 1
        assert guards.check(HEALTHY) == []


@pytest.mark.parametrize("metric", ["policy/loss", "policy/grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_stops_at_once(metric, value):
    with pytest.raises(NonFinite, match=str(value)):
        GuardState(GuardConfig()).check({**HEALTHY, metric: value})


def test_counts_survive_a_checkpoint():
    guards = GuardState(GuardConfig(patience=2))
    guards.check({**HEALTHY, "advantage/zero_share": 1.0})
    with pytest.raises(NoLearningSignal):
        GuardState(GuardConfig(patience=2), guards.offences).check({**HEALTHY, "advantage/zero_share": 1.0})


@pytest.mark.parametrize(("algorithm", "stops"), [(GrpoConfig(), True), (RemaxConfig(), False), (ReinforcePpConfig(), False)])
def test_equal_rewards_in_a_group_are_a_fault_only_where_the_group_is_the_baseline(algorithm, stops):
    guards = GuardState(GuardConfig(patience=1), compares_within_group=algorithm.compares_within_group)
    # What a group of one completion always reports.
    step = {**HEALTHY, "groups/zero_variance_share": 1.0}
    if stops:
        with pytest.raises(NoLearningSignal):
            guards.check(step)
    else:
        assert guards.check(step) == []
