"""The advantage of VinePPO against its formula, in plain Python or worked out by hand, and what its settings refuse."""

from __future__ import annotations

import asyncio

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from rlvr.advantages import GroupRewards, carries_gradient, compute_advantages, leave_one_out, vine
from rlvr.algorithm_settings import AlgorithmSettings, VineConfig, check_algorithm
from rlvr.algorithms import AlgorithmConfig
from rlvr.config import RunConfig
from rlvr.rollouts.gathering import Gathering
from rlvr.rollouts.step_values import join_steps
from rlvr.types import StepValues

ALGORITHM = TypeAdapter(AlgorithmConfig)


def group(*completions: tuple[float, list[int], list[float]]) -> GroupRewards:
    """Each completion is its reward, the tokens of its steps, and the values before each step but the first."""
    ends = [tuple(sum(tokens[: number + 1]) for number in range(len(tokens))) for _, tokens, _ in completions]
    return GroupRewards(
        rewards=torch.tensor([reward for reward, _, _ in completions], dtype=torch.float64),
        lengths=torch.tensor([end[-1] for end in ends]),
        values=tuple(StepValues(end, tuple(values)) for end, (_, _, values) in zip(ends, completions, strict=True)),
    )


def read(**values: object) -> AlgorithmSettings:
    return ALGORITHM.validate_python({"name": "vineppo"} | values)


def test_a_step_is_credited_with_what_it_adds_to_the_expected_score() -> None:
    # The prompt is worth the other's reward: 0 and 1. Gains 0.75 - 0, 1 - 0.75; and 0 - 1.
    first, second = vine(group((1.0, [1, 1], [0.75]), (0.0, [2], [])))
    assert first.tolist() == [0.75, 0.25] and second.tolist() == [-1, -1]


def test_every_token_follows_the_formula_on_uneven_steps() -> None:
    completions = [(0.3, [2, 1, 3], [0.5, -0.25]), (1.0, [4], []), (-0.5, [1, 1], [0.125])]
    for number, (credit, (reward, tokens, values)) in enumerate(zip(vine(group(*completions)), completions, strict=True)):
        others = [other for place, (other, _, _) in enumerate(completions) if place != number]
        states = [sum(others) / len(others), *values]
        expected = []
        for step, length in enumerate(tokens):
            gain = states[step + 1] - states[step] if step + 1 < len(tokens) else reward - states[step]
            expected += [gain] * length
        assert credit.tolist() == pytest.approx(expected, rel=1e-6)


def test_completions_of_one_step_are_credited_as_by_leave_one_out() -> None:
    single = group((1.0, [3], []), (0.0, [1], []), (0.5, [2], []))
    for credit, plain in zip(vine(single), leave_one_out(single), strict=True):
        assert torch.allclose(credit, plain)


def test_rewards_and_values_that_differ_in_their_last_bits_alone_are_equal() -> None:
    # 0.1 + 0.2 is not 0.3.
    credits = vine(group((0.3, [1, 1], [0.1 + 0.2]), (0.3, [2], []), (0.3, [1], [])))
    assert all(not credit.any() for credit in credits)


def test_equal_rewards_with_other_values_between_them_are_information() -> None:
    differ, same = group((1.0, [1, 1], [0.5]), (1.0, [1, 1], [1.0])), group((1.0, [1, 1], [1.0]), (1.0, [1, 1], [1.0]))
    assert carries_gradient(differ, read()) and not carries_gradient(same, read())
    assert not carries_gradient(differ, read(advantage="group_centred"))


def test_the_bundle_whitens_what_the_groups_gave() -> None:
    whole = group((1.0, [1, 1], [0.75]), (0.0, [2], []))
    tokens = torch.cat(compute_advantages([whole], read())[0])
    # Credits 0.75, 0.25, -1, -1 have mean -0.25 and variance (1 + 0.25 + 0.5625 * 2) / 4.
    spread = ((1 + 0.25 + 2 * 0.5625) / 4) ** 0.5
    assert tokens.tolist() == pytest.approx([1 / spread, 0.5 / spread, -0.75 / spread, -0.75 / spread], rel=1e-4)


def test_groups_without_values_or_siblings_are_refused() -> None:
    with pytest.raises(ValueError, match="the group has none: values is None"):
        vine(GroupRewards(torch.tensor([1.0, 0.0]), torch.tensor([1, 1])))
    with pytest.raises(ValueError, match="use a group size of at least 2"):
        vine(group((1.0, [1], [])))
    with pytest.raises(ValueError, match="set batch.group_size to at least 2"):
        check_algorithm(read(), group_size=1, max_new_tokens=64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "grpo", "vine": {"num_rollouts": 4}}, "vine would do nothing: set advantage=vine"),
        ({"overlong": {}}, "set overlong to null"),
        ({"kl": {"where": "reward"}}, "set kl.where=loss, or kl.coefficient to 0"),
        ({"pass_k": 2}, "needs both pass_k and advantage=pass_at_k"),
        ({"process": {"weight": 2.0}}, "does not look at the scores of steps"),
        ({"vine": {"separator": ""}}, "at least 1 character"),
        (
            {"name": "grpo", "advantage": "process_min_form", "process": {"outcome_weight": 1, "outcome_advantage": "vine"}},
            "outcomes alone",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(**values)


def test_values_go_with_other_bundles_too() -> None:
    config = read(name="rloo", advantage="vine", vine={"separator": "\n", "num_rollouts": 4})
    assert config.needs_values and config.vine == VineConfig(separator="\n", num_rollouts=4)
    assert config.kl.where == "reward" and config.kl.coefficient == 0


def test_episodes_are_refused_because_they_cannot_begin_in_their_middle() -> None:
    settings = {"model": {"path": "m"}, "data": {"path": "d"}, "environment": {"name": "python"}, "algorithm": {"name": "vineppo"}}
    with pytest.raises(ValidationError, match="environment.name=python cannot be begun there"):
        RunConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("ends", "max_steps", "joined"),
    [([1, 2, 3, 4, 5], 2, (2, 5)), ([1, 2, 3, 4, 5], 5, (1, 2, 3, 4, 5)), ([3, 9], 1, (9,)), ([7], 4, (7,)), ([1, 2, 4, 7], 3, (1, 2, 7))],
)
def test_steps_beyond_the_limit_are_joined_evenly(ends: list[int], max_steps: int, joined: tuple[int, ...]) -> None:
    assert join_steps(ends, max_steps) == joined


async def in_their_order(delays: dict[int, int], failing: frozenset[int] = frozenset()) -> list[int]:
    """Let tasks take so many turns each before they gather; return the order in which they go on."""
    gathering, gone_on = Gathering(), []

    async def work(number: int) -> None:
        with gathering.taking_part(number):
            for _ in range(delays[number]):
                await asyncio.sleep(0)
            if number in failing:
                return
            await gathering.everyone(number)
            gone_on.append(number)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for number in delays:
            tasks.create_task(work(number))
    return gone_on


@pytest.mark.parametrize("delays", [{0: 5, 1: 1, 2: 3}, {0: 0, 1: 0, 2: 0}, {2: 1, 1: 2, 0: 7}])
def test_who_gathers_goes_on_in_the_order_of_numbers(delays: dict[int, int]) -> None:
    assert asyncio.run(in_their_order(delays)) == [0, 1, 2]


def test_who_leaves_is_not_waited_for() -> None:
    assert asyncio.run(in_their_order({0: 5, 1: 1, 2: 3}, failing=frozenset({0}))) == [1, 2]
    assert asyncio.run(in_their_order({0: 5, 1: 1}, failing=frozenset({0, 1}))) == []
