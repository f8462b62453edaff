"""Rewards from verdicts: overlong punishment, KL estimates, the adaptive controller."""

from __future__ import annotations

import math

import pytest
import torch

from rlvr.algorithm_settings import KlConfig, OverlongConfig
from rlvr.algorithms import DapoConfig, GrpoConfig
from rlvr.rewards import KlController, is_informative, kl_estimate, kl_token_penalties, overlong_penalty, shape_rewards
from rlvr.types import Completion, Prompt, Rollout
from verifiers.types import Problem, Verdict


@pytest.mark.parametrize(("num_tokens", "cost"), [(1, 0.0), (80, 0.0), (81, 0.05), (90, 0.5), (100, 1.0)])
def test_the_overlong_punishment_grows_linearly_over_the_buffer(num_tokens: int, cost: float) -> None:
    # Limit 100, buffer 20: (n - 80) / 20 between 80 and 100.
    assert overlong_penalty(num_tokens, 100, OverlongConfig(buffer_tokens=20)) == pytest.approx(cost)


def test_the_default_buffer_is_the_papers_at_the_papers_limit() -> None:
    # 4096 of 20480: half way through the buffer costs half.
    assert overlong_penalty(20480 - 2048, 20480, OverlongConfig()) == 0.5


def test_the_penalty_scales_the_punishment() -> None:
    assert overlong_penalty(100, 100, OverlongConfig(buffer_tokens=20, penalty=0.3)) == pytest.approx(0.3)


def rollout(score: float, num_tokens: int) -> Rollout:
    problem = Problem("p", (), {})
    completion = Completion("", (7,) * num_tokens, (-0.5,) * num_tokens, "stop", 0, 0)
    return Rollout(Prompt(problem, (1,)), completion, Verdict(score, "correct"))


def test_a_reward_is_the_score_less_the_overlong_punishment() -> None:
    rollouts = [rollout(1.0, 5), rollout(1.0, 10), rollout(0.0, 9)]
    # Limit 10, buffer 10 / 5 = 2: free up to 8 tokens, 0.5 at 9, 1 at 10.
    assert shape_rewards(rollouts, DapoConfig(), max_new_tokens=10) == [1.0, 0.0, -0.5]


def test_without_overlong_punishment_a_reward_is_the_score() -> None:
    assert shape_rewards([rollout(0.25, 10)], GrpoConfig(), max_new_tokens=10) == [0.25]


def test_rewards_are_informative_when_they_differ_beyond_rounding() -> None:
    assert is_informative([0.0, 1.0])
    assert not is_informative([0.1 + 0.2, 0.3])
    assert not is_informative([1.0])


def test_the_three_kl_estimators_at_a_doubled_probability() -> None:
    policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    # d = ln 2; k2 = d^2 / 2; k3 = 1/2 - 1 + ln 2
    assert float(kl_estimate(policy, reference, "k1")) == pytest.approx(math.log(2))
    assert float(kl_estimate(policy, reference, "k2")) == pytest.approx(math.log(2) ** 2 / 2)
    assert float(kl_estimate(policy, reference, "k3")) == pytest.approx(math.log(2) - 0.5)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_unbiased_estimators_have_the_kl_as_their_mean(estimator) -> None:
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    kl = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    assert float((policy * kl_estimate(policy.log(), reference.log(), estimator)).sum()) == pytest.approx(kl)


def test_the_kl_in_the_reward_costs_each_token_its_share_and_has_no_gradient() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    penalties = kl_token_penalties(logprobs, torch.tensor([-1.5, -1.0]), coefficient=0.1, estimator="k1")
    assert penalties.tolist() == pytest.approx([0.05, -0.1])
    assert not penalties.requires_grad


@pytest.mark.parametrize(("observed", "factor"), [(12.0, 1.02), (6.6, 1.01), (6.0, 1.0), (0.0, 0.98)])
def test_the_adaptive_controller_moves_by_at_most_a_fifth_of_its_share_of_the_horizon(observed: float, factor: float) -> None:
    # e = clip(observed / 6 - 1, -0.2, 0.2), times 100 completions of a horizon of 1000.
    controller = KlController.from_config(KlConfig(coefficient=0.1, controller="adaptive", target=6.0, horizon=1000))
    assert controller.update(observed, 100).coefficient == pytest.approx(0.1 * factor)


def test_a_fixed_controller_stays_as_it_is() -> None:
    controller = KlController.from_config(KlConfig(coefficient=0.1))
    assert controller.update(100.0, 100) == controller
