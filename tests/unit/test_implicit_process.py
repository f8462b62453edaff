"""PRIME's advantage, its reward model's objective and the settings of both, against plain formulas and worked numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlvr.advantages import GroupRewards, compute_advantages, group_advantages, implicit_process, leave_one_out
from rlvr.algorithm_settings import ImplicitRewardConfig
from rlvr.algorithms import PrimeConfig
from rlvr.batch import LossInputs, Totals
from rlvr.credit import scores_are_informative
from rlvr.losses import ImplicitRewardObjective


def group(outcomes: list[float], *rewards: list[float]) -> GroupRewards:
    tokens = tuple(torch.tensor(values) for values in rewards)
    return GroupRewards(torch.tensor(outcomes), torch.tensor([len(values) for values in rewards]), token_rewards=tokens)


def listed(credits: list[Tensor]) -> list[list[float]]:
    return [credit.tolist() for credit in credits]


def assert_credits(actual: list[Tensor], expected: list[list[float]]) -> None:
    for credit, values in zip(listed(actual), expected, strict=True):
        assert credit == pytest.approx(values, abs=1e-6)


def equation_5(outcomes: list[float], rewards: list[list[float]], discount: float) -> list[list[float]]:
    """The paper's sums as they stand, the baseline a mean over tokens."""
    size = len(outcomes)
    credits = []
    for i in range(size):
        others = [j for j in range(size) if j != i]
        baseline = sum(sum(rewards[j]) / len(rewards[j]) for j in others) / (size - 1)
        outcome = outcomes[i] - sum(outcomes[j] for j in others) / (size - 1)
        length = len(rewards[i])
        credits.append([sum(discount ** (s - t) * (rewards[i][s] - baseline) for s in range(t, length)) + outcome for t in range(length)])
    return credits


def test_the_example_of_the_docstring() -> None:
    # Means 0.2 and -0.2 are each other's baselines: 0.5, 0.3 and -0.4; to go 0.8, 0.3 and -0.4; outcomes 1 and -1.
    assert_credits(implicit_process(group([1.0, 0.0], [0.3, 0.1], [-0.2])), [[1.8, 1.3], [-1.4]])


def test_what_comes_later_is_discounted_and_both_parts_are_weighed() -> None:
    # Discount 1/2: 0.5 + 0.15 = 0.65; twice that, and half of the outcome's 1 and -1.
    credits = implicit_process(group([1.0, 0.0], [0.3, 0.1], [-0.2]), discount=0.5, weight=2.0, outcome_weight=0.5)
    assert_credits(credits, [[1.8, 1.1], [-1.3]])


@pytest.mark.parametrize("discount", [1.0, 0.9, 0.0])
def test_it_is_the_papers_equation(discount: float) -> None:
    draw = torch.Generator().manual_seed(3)
    rewards = [torch.randn(length, generator=draw).tolist() for length in (5, 1, 3, 8)]
    outcomes = [1.0, 0.0, 0.25, 1.0]
    credits = implicit_process(group(outcomes, *rewards), discount=discount)
    for credit, expected in zip(credits, equation_5(outcomes, rewards, discount), strict=True):
        assert credit.tolist() == pytest.approx(expected, abs=1e-5)


def test_tokens_without_reward_leave_the_outcomes_left_one_out() -> None:
    flat = group([1.0, 0.0, 0.0], [0.0] * 4, [0.0], [0.0] * 2)
    assert listed(implicit_process(flat)) == listed(leave_one_out(flat))


def test_the_code_weighs_a_tokens_distance_from_its_own_mean_more() -> None:
    # verl's masked_rloo with 3 completions: r * 3/2 - (sum of the means) / 2; here that is our value plus (r - own mean) / 2.
    rewards = [[0.4, 0.0], [0.1], [-0.3, 0.3, 0.3]]
    ours = implicit_process(group([0.0] * 3, *rewards), discount=0.0)
    means = [sum(values) / len(values) for values in rewards]
    for values, mean, credit in zip(rewards, means, ours, strict=True):
        code = [value * 3 / 2 - sum(means) / 2 for value in values]
        assert [c - (value - mean) / 2 for c, value in zip(code, values, strict=True)] == pytest.approx(credit.tolist(), abs=1e-6)


def test_without_token_rewards_or_siblings_it_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a reward for each token"):
        implicit_process(GroupRewards(torch.tensor([1.0, 0.0]), torch.tensor([2, 2])))
    with pytest.raises(ValueError, match="use a group size of at least 2"):
        implicit_process(group([1.0], [0.5]))


def test_the_settings_reach_the_estimator_and_whitening_comes_after() -> None:
    seen = group([1.0, 0.0], [0.3, 0.1], [-0.2])
    config = PrimeConfig(implicit=ImplicitRewardConfig(discount=0.5, weight=2.0, outcome_weight=0.5))
    assert_credits(group_advantages(seen, config), [[1.8, 1.1], [-1.3]])
    [whitened] = compute_advantages([seen], config.model_copy(update={"batch_scaling": "whiten"}))
    values = torch.cat(whitened)
    assert float(values.mean()) == pytest.approx(0, abs=1e-6) and float(values.std(unbiased=False)) == pytest.approx(1, abs=1e-4)


def test_a_group_is_informative_by_its_outcomes() -> None:
    from tests.unit.test_implicit_rewards import group_of

    assert scores_are_informative(group_of([(1.0, [5]), (0.0, [6])]), PrimeConfig())
    assert not scores_are_informative(group_of([(1.0, [5]), (1.0, [6])]), PrimeConfig())


def inputs(logprobs: Tensor, reference: Tensor, labels: list[float], mask: Tensor) -> LossInputs:
    spread = torch.tensor(labels)[:, None].expand_as(mask)
    return LossInputs(logprobs, logprobs.detach(), logprobs.detach(), reference, spread * mask, mask)


def example() -> tuple[Tensor, Tensor, list[float], Tensor]:
    draw = torch.Generator().manual_seed(0)
    logprobs, reference = -torch.rand(3, 5, generator=draw), -torch.rand(3, 5, generator=draw)
    mask = torch.tensor([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    return logprobs, reference, [1.0, 0.0, 0.25], mask


def test_the_objective_and_its_gradient_are_the_cross_entropy_written_out() -> None:
    logprobs, reference, labels, mask = example()
    ours, theirs = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    share, stats = ImplicitRewardObjective(beta=2.0)(inputs(ours, reference, labels, mask), Totals(7, 4, 1))
    expected = torch.tensor(0.0)
    for row, label in enumerate(labels):
        reward = sum(2.0 * (theirs[row, t] - reference[row, t]) for t in range(5) if mask[row, t])
        expected = expected - (label * torch.log(torch.sigmoid(reward)) + (1 - label) * torch.log(1 - torch.sigmoid(reward))) / 4
    share.backward()
    expected.backward()
    assert share.item() == pytest.approx(expected.item(), abs=1e-6) and stats == {}
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6) and not ours.grad[~mask].any()


def test_equal_models_cost_ln_2_whatever_the_outcome() -> None:
    logprobs, _, labels, mask = example()
    share, _ = ImplicitRewardObjective(beta=0.05)(inputs(logprobs, logprobs, labels, mask), Totals(7, 3, 1))
    assert share.item() == pytest.approx(0.693147, abs=1e-6)


def test_what_is_not_scored_matters_to_nothing() -> None:
    logprobs, reference, labels, mask = example()
    spoilt = torch.where(mask, logprobs, torch.nan).requires_grad_()
    objective = ImplicitRewardObjective(beta=1.0)
    share, _ = objective(inputs(spoilt, reference, labels, mask), Totals(7, 3, 1))
    share.backward()
    whole, _ = objective(inputs(logprobs, reference, labels, mask), Totals(7, 3, 1))
    assert share.item() == whole.item() and not spoilt.grad[~mask].any()


def test_without_a_reference_the_objective_is_refused() -> None:
    logprobs, _, labels, mask = example()
    with pytest.raises(ValueError, match="annotate the mini-batch"):
        ImplicitRewardObjective(beta=1.0)(inputs(logprobs, None, labels, mask), Totals(7, 3, 1))
