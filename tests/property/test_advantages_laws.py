"""Laws of the advantage estimators, over arbitrary rewards."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlvr.advantages import GroupRewards, group_centred, group_zscore, leave_one_out, optimal_baseline, pass_at_k
from rlvr.rewards import is_informative

REWARDS = st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=7)
ESTIMATORS = [group_zscore, group_centred, leave_one_out, optimal_baseline]


def group(rewards: list[float], lengths: list[int] | None = None) -> GroupRewards:
    return GroupRewards(torch.tensor(rewards), torch.tensor(lengths or [1] * len(rewards)))


def firsts(advantages: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([credit[0] for credit in advantages]).double()


@given(rewards=REWARDS)
def test_the_zscore_has_zero_mean_and_at_most_unit_spread(rewards: list[float]) -> None:
    advantages = firsts(group_zscore(group(rewards)))
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-6)
    assert float(advantages.std()) <= 1 + 1e-6


@given(rewards=REWARDS, shift=st.floats(-1, 1), scale=st.floats(0.5, 4))
def test_the_zscore_forgets_shift_and_scale(rewards: list[float], shift: float, scale: float) -> None:
    assume(max(rewards) - min(rewards) > 0.1)
    moved = [shift + scale * reward for reward in rewards]
    assert torch.allclose(firsts(group_zscore(group(moved))), firsts(group_zscore(group(rewards))), atol=1e-4)


@pytest.mark.parametrize("estimate", [*ESTIMATORS, lambda group: pass_at_k(group, 2)], ids=lambda estimate: estimate.__name__)
@given(reward=st.floats(-2, 2, width=32), lengths=st.lists(st.integers(1, 9), min_size=2, max_size=7))
def test_a_group_with_equal_rewards_has_zero_advantage(estimate, reward: float, lengths: list[int]) -> None:
    assert all(not credit.any() for credit in estimate(group([reward] * len(lengths), lengths)))


@given(rewards=REWARDS)
def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_one(rewards: list[float]) -> None:
    size = len(rewards)
    assert torch.allclose(firsts(leave_one_out(group(rewards))), firsts(group_centred(group(rewards))) * size / (size - 1), atol=1e-6)


@given(rewards=REWARDS, data=st.data())
def test_the_optimal_baseline_balances_length_weighted_credit(rewards: list[float], data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=len(rewards), max_size=len(rewards)))
    assert sum(float(credit.double().sum()) for credit in optimal_baseline(group(rewards, lengths))) == pytest.approx(0, abs=1e-4)


@given(rewards=REWARDS)
def test_optimal_baseline_with_equal_lengths_is_the_mean(rewards: list[float]) -> None:
    lengths = [3] * len(rewards)
    assert torch.allclose(firsts(optimal_baseline(group(rewards, lengths))), firsts(group_centred(group(rewards, lengths))), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(rewards=REWARDS, data=st.data())
def test_pass_at_k_equals_the_enumeration_of_subsets(rewards: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(2, len(rewards)))
    expected = []
    for index, reward in enumerate(rewards):
        subsets = list(combinations(rewards[:index] + rewards[index + 1 :], k - 1))
        expected.append(k * sum(max(reward, *subset) - max(subset) for subset in subsets) / len(subsets))
    assert firsts(pass_at_k(group(rewards), k)).tolist() == pytest.approx(expected, abs=1e-5)


@given(rewards=REWARDS)
def test_a_group_is_informative_exactly_when_its_zscore_is_not_zero(rewards: list[float]) -> None:
    assert is_informative(rewards) == bool(firsts(group_zscore(group(rewards))).any())
