"""Laws of PRIME's advantage, over arbitrary token rewards and outcomes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr.advantages import GroupRewards, implicit_process, leave_one_out

REWARDS = st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=6)
GROUPS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), REWARDS), min_size=2, max_size=5)
DISCOUNTS = st.sampled_from([0.0, 0.7, 1.0])


def group(completions: list[tuple[float, list[float]]], shift: float = 0.0) -> GroupRewards:
    tokens = tuple(torch.tensor(values, dtype=torch.float64) + shift for _, values in completions)
    outcomes = torch.tensor([outcome for outcome, _ in completions])
    return GroupRewards(outcomes, torch.tensor([len(values) for values in tokens]), token_rewards=tokens)


@given(completions=GROUPS, discount=DISCOUNTS, order=st.randoms(use_true_random=False))
def test_the_order_of_completions_does_not_matter(completions, discount: float, order) -> None:
    places = list(range(len(completions)))
    order.shuffle(places)
    whole = implicit_process(group(completions), discount=discount)
    shuffled = implicit_process(group([completions[place] for place in places]), discount=discount)
    for place, credit in zip(places, shuffled, strict=True):
        assert torch.allclose(credit, whole[place], atol=1e-5)


@given(completions=GROUPS, discount=DISCOUNTS, shift=st.floats(-2, 2))
def test_what_all_tokens_have_in_common_counts_nothing(completions, discount: float, shift: float) -> None:
    plain, shifted = (implicit_process(group(completions, by), discount=discount) for by in (0.0, shift))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain, shifted, strict=True))


@given(completions=GROUPS, weight=st.floats(0.1, 3), outcome_weight=st.floats(0, 3))
def test_it_is_linear_in_both_weights(completions, weight: float, outcome_weight: float) -> None:
    seen = group(completions)
    both = implicit_process(seen, weight=weight, outcome_weight=outcome_weight)
    tokens, outcomes = implicit_process(seen, outcome_weight=0.0), leave_one_out(seen)
    for credit, process, outcome in zip(both, tokens, outcomes, strict=True):
        assert torch.allclose(credit, weight * process + outcome_weight * outcome, atol=1e-4)


@given(completions=GROUPS)
def test_without_discount_a_step_down_the_completion_costs_the_token_and_its_baseline(completions) -> None:
    # A_t - A_(t+1) = r_t - b, so consecutive differences differ by the rewards' own.
    for (_, values), credit in zip(completions, implicit_process(group(completions)), strict=True):
        drops = (credit[:-1] - credit[1:]).tolist()
        for t in range(len(drops) - 1):
            assert drops[t] - drops[t + 1] == pytest.approx(values[t] - values[t + 1], abs=1e-4)


@given(completions=GROUPS)
def test_completions_of_one_token_are_left_one_out_in_reward_and_outcome(completions) -> None:
    single = [(outcome, values[:1]) for outcome, values in completions]
    sums = GroupRewards(torch.tensor([o + v[0] for o, v in single], dtype=torch.float64), torch.tensor([1] * len(single)))
    for credit, expected in zip(implicit_process(group(single)), leave_one_out(sums), strict=True):
        assert float(credit[0]) == pytest.approx(float(expected[0]), abs=1e-4)


@given(outcome=st.sampled_from([0.0, 1.0]), lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5), reward=st.floats(-2, 2, width=32))
def test_equal_rewards_and_outcomes_have_no_advantage(outcome: float, lengths: list[int], reward: float) -> None:
    credits = implicit_process(group([(outcome, [reward] * length) for length in lengths]))
    assert all(torch.allclose(credit, torch.zeros(()), atol=1e-5) for credit in credits)
