"""Each advantage estimator against its paper's formula, evaluated in plain Python or worked out by hand."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from rlvr.advantages import (
    GroupRewards,
    compute_advantages,
    greedy_baseline,
    group_centred,
    group_zscore,
    leave_one_out,
    optimal_baseline,
    pass_at_k,
    raw_reward,
    whiten,
)
from rlvr.algorithms import GpgConfig, GrpoConfig, ReinforcePpBaselineConfig, ReinforcePpConfig, RemaxConfig
from verifiers.errors import UnknownName


def group(rewards: list[float], lengths: list[int] | None = None, **rest: object) -> GroupRewards:
    return GroupRewards(torch.tensor(rewards, dtype=torch.float32), torch.tensor(lengths or [1] * len(rewards)), **rest)


def firsts(advantages: list[torch.Tensor]) -> list[float]:
    return [float(credit[0]) for credit in advantages]


def test_the_zscore_of_one_right_in_four() -> None:
    # mean 1/4, squared distances 9/16 + 3 * 1/16 = 3/4, std sqrt((3/4) / 3) = 1/2; the epsilon of 1e-6 moves the sixth digit.
    assert firsts(group_zscore(group([1, 0, 0, 0]))) == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-5)


def test_the_zscore_follows_the_formula_on_uneven_rewards() -> None:
    rewards = [0.3, -1.2, 2.0, 0.3, 0.9]
    spread = statistics.stdev(rewards)
    expected = [(reward - statistics.mean(rewards)) / spread for reward in rewards]
    assert firsts(group_zscore(group(rewards))) == pytest.approx(expected, rel=1e-5)


def test_centring_subtracts_the_groups_mean() -> None:
    assert firsts(group_centred(group([1, 0, 0, 0]))) == [0.75, -0.25, -0.25, -0.25]


def test_leave_one_out_subtracts_the_mean_of_the_siblings() -> None:
    rewards = [0.5, 1.0, 0.0, 0.25]
    expected = [reward - sum(rewards[:i] + rewards[i + 1 :]) / 3 for i, reward in enumerate(rewards)]
    assert firsts(leave_one_out(group(rewards))) == pytest.approx(expected)


def test_the_optimal_baseline_weighs_rewards_by_length() -> None:
    # b = (2 * 1 + 6 * 0 + 4 * 0.5) / 12 = 1/3
    assert firsts(optimal_baseline(group([1.0, 0.0, 0.5], [2, 6, 4]))) == pytest.approx([2 / 3, -1 / 3, 1 / 6])


def test_the_greedy_baseline_is_the_greedy_completions_reward() -> None:
    assert firsts(greedy_baseline(group([1.0, 0.0], greedy_reward=1.0))) == [0.0, -1.0]


def test_a_missing_greedy_reward_is_an_error() -> None:
    with pytest.raises(ValueError, match="greedy_reward is None"):
        greedy_baseline(group([1.0, 0.0]))


def test_the_raw_reward_is_the_return_to_go_under_token_penalties() -> None:
    penalties = (torch.tensor([0.1, 0.2, 0.4]), torch.tensor([0.5]))
    first, second = raw_reward(group([1.0, 0.0], [3, 1], token_penalties=penalties))
    # 1 - (0.1 + 0.2 + 0.4), 1 - (0.2 + 0.4), 1 - 0.4
    assert first.tolist() == pytest.approx([0.3, 0.4, 0.6])
    assert second.tolist() == pytest.approx([-0.5])


def test_group_baselines_see_the_reward_less_all_its_penalties() -> None:
    # Returns 1 - 0.3 = 0.7 and 0 - 0.1 = -0.1 have the mean 0.3.
    penalties = (torch.tensor([0.1, 0.2]), torch.tensor([0.1]))
    assert firsts(group_centred(group([1.0, 0.0], [2, 1], token_penalties=penalties))) == pytest.approx([0.4, -0.4])


def test_pass_at_2_credits_what_a_completion_adds_to_the_best_of_two() -> None:
    # A right one beats 2 of 3 siblings by 1: 2 * 2/3. A wrong one never adds anything.
    assert firsts(pass_at_k(group([1, 1, 0, 0]), 2)) == pytest.approx([4 / 3, 4 / 3, 0, 0])


def test_pass_at_k_with_the_whole_group_credits_the_best_with_its_lead_only() -> None:
    # One subset of siblings each: 0.9 leads the next by 0.3, times k = 3.
    assert firsts(pass_at_k(group([0.6, 0.9, 0.1]), 3)) == pytest.approx([0, 0.9, 0], abs=1e-6)


def test_the_mean_pass_at_k_credit_is_the_gradient_of_the_expected_best_of_k() -> None:
    # A policy over three answers; the estimator's exact expectation over all 3^4 groups of 4 against autograd through E[max of k].
    rewards, size = [1.0, 0.4, 0.0], 4
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    probs = logits.softmax(0)
    for k in (2, 3):
        best = sum(
            math.prod(probs[i] for i in draw) * max(rewards[i] for i in draw)
            for draw in torch.cartesian_prod(*[torch.arange(3)] * k).tolist()
        )
        (expected,) = torch.autograd.grad(best, logits, retain_graph=True)
        estimate = torch.zeros(3, dtype=torch.float64)
        for draw in torch.cartesian_prod(*[torch.arange(3)] * size).tolist():
            chance = math.prod(probs[i].item() for i in draw)
            credits = firsts(pass_at_k(group([rewards[i] for i in draw]), k))
            for index, credit in zip(draw, credits, strict=True):
                score = torch.nn.functional.one_hot(torch.tensor(index), 3) - probs.detach()  # grad log softmax
                estimate += chance * credit / size * score
        assert torch.allclose(estimate, expected, atol=1e-7)


@pytest.mark.parametrize("k", [1, 5])
def test_pass_at_k_refuses_a_k_outside_the_group(k: int) -> None:
    with pytest.raises(ValueError, match="between 2 and the group's size"):
        pass_at_k(group([1, 0, 0, 0]), k)


@pytest.mark.parametrize("estimate", [group_zscore, group_centred, leave_one_out, optimal_baseline])
def test_group_baselines_refuse_a_single_completion(estimate) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        estimate(group([1.0]))


def test_an_advantage_has_one_value_a_token() -> None:
    assert [credit.tolist() for credit in group_centred(group([1.0, 0.0], [3, 1]))] == [[0.5, 0.5, 0.5], [-0.5]]


def test_reinforce_pp_whitens_over_all_tokens_of_the_batch() -> None:
    groups = [group([1.0], [3]), group([0.0], [1])]
    # Tokens 1, 1, 1, 0: mean 3/4, variance 3/16.
    (first,), (second,) = compute_advantages(groups, ReinforcePpConfig())
    spread = math.sqrt(3 / 16)
    assert first.tolist() == pytest.approx([0.25 / spread] * 3, rel=1e-5)
    assert second.tolist() == pytest.approx([-0.75 / spread], rel=1e-5)


def test_reinforce_pp_with_a_baseline_centres_the_group_before_it_whitens() -> None:
    groups = [group([1.0, 0.0]), group([1.0, 1.0])]
    # Centred: 0.5, -0.5, 0, 0; mean 0, variance 0.5 / 4 = 1/8.
    advantages = compute_advantages(groups, ReinforcePpBaselineConfig())
    assert [firsts(group) for group in advantages] == [pytest.approx([8**0.5 / 2, -(8**0.5) / 2], rel=1e-5), pytest.approx([0, 0])]


def test_whitening_over_two_ranks_equals_whitening_the_whole_batch() -> None:
    whole = [[torch.tensor([1.0, 2.0])], [torch.tensor([5.0])]]
    expected = [credit for group in whiten(whole) for credit in group]
    # Each rank's sums, in the order they are asked for: (sum, count), then squared distances from the mean 8/3.
    other = {0: iter([[5.0, 1.0], (5 - 8 / 3) ** 2]), 1: iter([[3.0, 2.0], (1 - 8 / 3) ** 2 + (2 - 8 / 3) ** 2])}
    for rank in (0, 1):
        sums = other[rank]
        local = whiten([whole[rank]], all_reduce_sum=lambda value, sums=sums: value + torch.tensor(next(sums), dtype=value.dtype))
        assert torch.allclose(local[0][0], expected[rank])


def test_whitening_does_not_count_completions_that_the_loss_does_not_see() -> None:
    masked = GroupRewards(torch.tensor([1.0, 0.0, 9.0]), torch.tensor([1, 1, 1]), scored=(True, True, False))
    # Of the scored rewards 1 and 0 the mean is 0.5 and the standard deviation 0.5.
    (credits,) = compute_advantages([masked], ReinforcePpConfig())
    assert firsts(credits)[:2] == pytest.approx([1.0, -1.0], rel=1e-5)


def test_a_batch_without_spread_whitens_to_exactly_zero() -> None:
    advantages = compute_advantages([group([0.1]), group([0.1]), group([0.1])], ReinforcePpConfig())
    assert [firsts(group) for group in advantages] == [[0.0], [0.0], [0.0]]


def test_whitening_does_not_blow_up_rounding_differences() -> None:
    # Neighbouring floats: a spread of 1.5e-8 over eps = 1e-6 would be credit of 0.015.
    advantages = compute_advantages([group([0.3]), group([0.3000001])], ReinforcePpConfig())
    assert [firsts(group) for group in advantages] == [[0.0], [0.0]]


def test_gpg_makes_up_for_the_groups_without_gradient() -> None:
    groups = [group([1.0, 0.0]), group([1.0, 1.0]), group([0.0, 0.0]), group([0.0, 0.0])]
    # One informative group of four: 4 * 0.5.
    advantages = compute_advantages(groups, GpgConfig())
    assert [firsts(group) for group in advantages] == [[2.0, -2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_gpg_counts_the_groups_of_all_ranks() -> None:
    # The other rank holds three groups, none informative: alpha = 4 / 1.
    advantages = compute_advantages(
        [group([1.0, 0.0])], GpgConfig(), all_reduce_sum=lambda value: value + torch.tensor([3.0, 0.0], dtype=value.dtype)
    )
    assert firsts(advantages[0]) == [2.0, -2.0]


def test_gpg_leaves_a_batch_without_any_gradient_at_zero() -> None:
    assert firsts(compute_advantages([group([1.0, 1.0])], GpgConfig())[0]) == [0.0, 0.0]


def test_the_configured_k_reaches_the_pass_at_k_advantage() -> None:
    advantages = compute_advantages([group([1, 1, 0, 0])], GrpoConfig(advantage="pass_at_k", pass_k=3))
    # A right one adds 1 only where both siblings drawn are wrong: one of three pairs, times 3.
    assert firsts(advantages[0]) == pytest.approx([1, 1, 0, 0])


def test_remax_reads_the_greedy_reward() -> None:
    assert firsts(compute_advantages([group([1.0, 0.5], greedy_reward=0.5)], RemaxConfig())[0]) == [0.5, 0.0]


def double_reward(rewards: GroupRewards) -> list[torch.Tensor]:
    return [torch.full((int(length),), 2 * float(reward)) for reward, length in zip(rewards.rewards, rewards.lengths, strict=True)]


def test_an_advantage_of_ones_own_is_named_by_its_path() -> None:
    config = GrpoConfig(advantage=f"{__name__}:double_reward")
    assert firsts(compute_advantages([group([1.0, 0.5])], config)[0]) == [2.0, 1.0]


def test_a_misspelt_advantage_lists_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'group_zscore'"):
        compute_advantages([group([1.0, 0.5])], GrpoConfig(advantage="group_zscor"))


def test_an_empty_batch_has_no_advantages() -> None:
    assert compute_advantages([], ReinforcePpConfig()) == []
