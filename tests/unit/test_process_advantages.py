"""Advantages of scored steps against their papers' formulas, in plain Python or worked out by hand, and how settings combine them."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from rlvr.advantages import (
    GroupRewards,
    StepRewards,
    carries_gradient,
    compute_advantages,
    process_group_zscore,
    process_min_form,
    process_return_to_go,
)
from rlvr.algorithm_settings import PROCESS_ADVANTAGES, AlgorithmSettings, check_algorithm
from rlvr.algorithms import AlgorithmConfig

ALGORITHM = TypeAdapter(AlgorithmConfig)
ESTIMATORS = [process_group_zscore, process_return_to_go, process_min_form]


def group(*completions: list[tuple[float, int]], rewards: list[float] | None = None) -> GroupRewards:
    """Each completion is a list of (score, tokens) of its steps."""
    ends = [[sum(tokens for _, tokens in steps[: number + 1]) for number in range(len(steps))] for steps in completions]
    return GroupRewards(
        rewards=torch.tensor(rewards or [0.0] * len(completions)),
        lengths=torch.tensor([end[-1] if end else 1 for end in ends]),
        steps=tuple(
            StepRewards(torch.tensor([score for score, _ in steps], dtype=torch.float32), torch.tensor(end, dtype=torch.int64))
            for steps, end in zip(completions, ends, strict=True)
        ),
    )


def lists(advantages: list[torch.Tensor]) -> list[list[float]]:
    return [credit.tolist() for credit in advantages]


def read(**values: object) -> AlgorithmSettings:
    return ALGORITHM.validate_python({"name": "dr_grpo"} | values)


def test_process_supervision_sums_the_normalised_scores_of_the_steps_not_yet_over() -> None:
    # Scores 1, 0, 1, 1: mean 3/4, squared distances 1/16 * 3 + 9/16 = 3/4, std sqrt((3/4) / 3) = 1/2: normalised 0.5 and -1.5.
    # The first completion: 0.5 - 1.5 on its first step's two tokens, -1.5 on its second's three. The other: 0.5 + 0.5, and 0.5.
    first, second = lists(process_group_zscore(group([(1, 2), (0, 3)], [(1, 1), (1, 1)])))
    assert first == pytest.approx([-1, -1, -1.5, -1.5, -1.5], rel=1e-5)
    assert second == pytest.approx([1, 0.5], rel=1e-5)


def test_without_what_comes_after_a_token_answers_for_its_own_step() -> None:
    # The same normalised scores 0.5, -1.5 and 0.5, 0.5. With a discount of a half: 0.5 - 1.5 / 2 = -0.25.
    uneven = group([(1, 2), (0, 3)], [(1, 1), (1, 1)])
    first, second = lists(process_group_zscore(uneven, discount=0.0))
    assert first == pytest.approx([0.5, 0.5, -1.5, -1.5, -1.5], rel=1e-5) and second == pytest.approx([0.5, 0.5], rel=1e-5)
    assert lists(process_group_zscore(uneven, discount=0.5))[0][0] == pytest.approx(-0.25, rel=1e-4)
    settings = read(advantage="process_group_zscore", process={"discount": 0.0})
    assert lists(compute_advantages([uneven], settings)[0]) == [first, second]


def test_process_supervision_follows_the_formula_on_uneven_steps() -> None:
    completions = [[(0.3, 2), (-1.2, 1), (2.0, 3)], [(0.5, 4)], [(0.1, 1), (0.9, 1)]]
    scores = [score for steps in completions for score, _ in steps]
    mean, spread = statistics.mean(scores), statistics.stdev(scores)
    for steps, credit in zip(completions, lists(process_group_zscore(group(*completions))), strict=True):
        expected = []
        for number, (_, tokens) in enumerate(steps):
            expected += [sum((score - mean) / spread for score, _ in steps[number:])] * tokens
        assert credit == pytest.approx(expected, rel=1e-4)


def test_the_return_to_go_is_compared_with_the_groups_at_the_same_step() -> None:
    # Returns (1, 0) and (2, 1), means 1.5 and 0.5.
    first, second = lists(process_return_to_go(group([(1, 2), (0, 3)], [(1, 1), (1, 1)])))
    assert first == [-0.5, -0.5, -0.5, -0.5, -0.5] and second == [0.5, 0.5]


def test_a_completion_with_fewer_steps_returns_nothing_behind_its_last() -> None:
    # Returns (3, 2) and (1,): means 2 and (2 + 0) / 2.
    first, second = lists(process_return_to_go(group([(1, 1), (2, 1)], [(1, 2)])))
    assert first == [1, 1] and second == [-1, -1]


def test_the_discount_is_for_each_step_between() -> None:
    # Returns 1 + 4 / 2 + 8 / 4 = 5, 4 + 8 / 2 = 8, 8; and 1 alone. Means 3, 4, 4.
    first, second = lists(process_return_to_go(group([(1, 1), (4, 1), (8, 1)], [(1, 1)]), discount=0.5))
    assert first == [2, 4, 4] and second == [-2]


def test_the_min_form_returns_the_worst_score_until_that_step_is_over() -> None:
    # Weights near (0, 1, 0): returns -1, -1, 0. The sibling's two equal steps weigh 1/2 each: returns 0.5, 0.25, three tokens of the first.
    # Baselines: the sibling's mean (3 * 0.5 + 0.25) / 4 = 0.4375, and (-1 - 1 + 0) / 3 = -2/3.
    first, second = lists(process_min_form(group([(1, 1), (-1, 1), (1, 1)], [(0.5, 3), (0.5, 1)]), temperature=0.01))
    assert first == pytest.approx([-1.4375, -1.4375, -0.4375])
    assert second == pytest.approx([0.5 + 2 / 3] * 3 + [0.25 + 2 / 3])


def test_the_min_form_follows_the_formula_on_uneven_steps() -> None:
    completions, temperature = [[(0.3, 2), (-0.2, 1), (0.8, 3)], [(-0.5, 4)], [(0.1, 1), (0.9, 2)]], 0.1
    returns = []
    for steps in completions:
        weights = [math.exp(-score / temperature) for score, _ in steps]
        weighted = [weight / sum(weights) * score for weight, (score, _) in zip(weights, steps, strict=True)]
        returns.append([sum(weighted[number:]) for number, (_, tokens) in enumerate(steps) for _ in range(tokens)])
    for number, credit in enumerate(lists(process_min_form(group(*completions), temperature=temperature))):
        siblings = [value for other, values in enumerate(returns) if other != number for value in values]
        assert credit == pytest.approx([value - statistics.mean(siblings) for value in returns[number]], rel=1e-4)


def test_the_docstrings_examples_hold() -> None:
    two = group([(1, 1), (0, 1)], [(1, 1), (1, 1)])
    assert [pytest.approx(credit, rel=1e-5) for credit in lists(process_group_zscore(two))] == [[-1, -1.5], [1, 0.5]]
    assert lists(process_return_to_go(two)) == [[-0.5, -0.5], [0.5, 0.5]]
    credits = lists(process_min_form(group([(1, 1), (-1, 1)], [(1, 1), (1, 1)]), temperature=0.01))
    assert [pytest.approx(credit) for credit in credits] == [[-1.75, -1.75], [2, 1.5]]


def test_a_token_that_ends_several_steps_gets_the_credit_of_the_first() -> None:
    merged = GroupRewards(
        torch.zeros(2),
        torch.tensor([2, 1]),
        steps=(StepRewards(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 1, 2])), StepRewards(torch.tensor([0.0]), torch.tensor([1]))),
    )
    # Returns 7, 6, 4 against 0, 0, 0: means 3.5, 3, 2. The first token begins with step 1, the second belongs to step 3.
    assert lists(process_return_to_go(merged)) == [[3.5, 2], [-3.5]]


def test_a_completion_without_steps_returns_nothing() -> None:
    # A blank one among others: it scores no step, and is compared as a return of 0.
    some = group([(1, 1), (0, 1)], [])
    assert lists(process_group_zscore(some))[1] == [0]
    assert lists(process_return_to_go(some)) == [[0.5, 0], [-0.5]]
    assert lists(process_min_form(some, temperature=0.5))[1][0] < 0


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_a_group_without_steps_or_siblings_is_refused(estimate) -> None:
    with pytest.raises(ValueError, match="use a verifier that scores steps"):
        estimate(GroupRewards(torch.tensor([1.0, 0.0]), torch.tensor([1, 1])))
    with pytest.raises(ValueError, match="at least 2"):
        estimate(group([(1, 1)]))


def test_the_outcome_is_added_with_its_weight_and_the_same_kind_of_baseline() -> None:
    both = group([(1, 2), (0, 1)], [(1, 1), (1, 1)], rewards=[1.0, 0.0])
    settings = {"advantage": "process_return_to_go", "process": {"weight": 2.0, "outcome_weight": 0.5}}
    # Twice -0.5 and half of 1 - 1/2; twice 0.5 and half of -1/2.
    assert lists(compute_advantages([both], read(**settings))[0]) == [[-0.75] * 3, [0.75] * 2]
    settings["process"]["outcome_advantage"] = "leave_one_out"
    # Leave one out: 1 and -1.
    assert lists(compute_advantages([both], read(**settings))[0]) == [[-0.5] * 3, [0.5] * 2]


@pytest.mark.parametrize("name", PROCESS_ADVANTAGES)
def test_a_weight_of_zero_leaves_the_outcome_out(name: str) -> None:
    same_steps = [(1.0, 1), (-1.0, 2)], [(0.0, 1)]
    (credits,) = compute_advantages([group(*same_steps, rewards=[1.0, 0.0])], read(advantage=name))
    (others,) = compute_advantages([group(*same_steps, rewards=[0.0, 5.0])], read(advantage=name))
    assert lists(credits) == lists(others)


def test_temperature_and_discount_come_from_the_settings() -> None:
    some = group([(1, 1), (-0.5, 1)], [(0.5, 1), (0.25, 1)])
    config = read(advantage="process_min_form", process={"temperature": 1.0})
    assert lists(compute_advantages([some], config)[0]) == lists(process_min_form(some, temperature=1.0)) != lists(process_min_form(some))
    config = read(advantage="process_return_to_go", process={"discount": 0.5})
    assert lists(compute_advantages([some], config)[0]) == lists(process_return_to_go(some, discount=0.5))


def test_equal_outcomes_with_different_steps_carry_a_gradient() -> None:
    differ, same = group([(1, 1)], [(0, 1)]), group([(1, 1)], [(1, 1)])
    for name in PROCESS_ADVANTAGES:
        assert carries_gradient(differ, read(advantage=name)) and not carries_gradient(same, read(advantage=name))
    assert not carries_gradient(differ, read())


def test_an_outcome_without_weight_is_no_information() -> None:
    outcomes_differ = group([(1, 1)], [(1, 1)], rewards=[1.0, 0.0])
    assert not carries_gradient(outcomes_differ, read(advantage="process_group_zscore"))
    assert carries_gradient(outcomes_differ, read(advantage="process_group_zscore", process={"outcome_weight": 0.1}))


def test_groups_that_differ_in_their_steps_alone_count_as_informative_in_the_batch() -> None:
    groups = [group([(1, 1)], [(0, 1)]), group([(1, 1)], [(1, 1)])]
    config = read(name="gpg", advantage="process_return_to_go")
    # One informative group of two: 0.5 and -0.5, times 2.
    assert [lists(credits) for credits in compute_advantages(groups, config)] == [[[1], [-1]], [[0], [0]]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"process": {"outcome_weight": 1.0}}, "advantage=group_centred does not look at the scores of steps"),
        ({"advantage": "process_min_form", "process": {"discount": 0.9}}, "read by process_group_zscore and process_return_to_go alone"),
        ({"advantage": "process_return_to_go", "process": {"temperature": 1.0}}, "read by process_min_form alone"),
        ({"advantage": "process_min_form", "process": {"outcome_advantage": "leave_one_out"}}, "while process.outcome_weight is 0"),
        (
            {"advantage": "process_min_form", "process": {"outcome_weight": 1.0, "outcome_advantage": "process_min_form"}},
            "set for example group_zscore or leave_one_out",
        ),
        ({"name": "dapo", "advantage": "process_min_form"}, "overlong to null"),
        ({"name": "reinforce_pp", "advantage": "process_min_form"}, "set kl.where=loss"),
        ({"advantage": "process_min_form", "process": {"weight": 0.0}}, "greater than 0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused_with_the_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(**values)


def test_an_advantage_of_steps_compares_within_a_group() -> None:
    with pytest.raises(ValueError, match="set batch.group_size to at least 2"):
        check_algorithm(read(advantage="process_group_zscore"), group_size=1, max_new_tokens=8)
