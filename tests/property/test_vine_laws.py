"""Laws of VinePPO's advantage, over arbitrary rewards, steps and values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr.advantages import vine
from rlvr.rollouts.step_values import join_steps
from tests.unit.test_vine import group

SCORE = st.floats(-2, 2, width=16)


@st.composite
def completions(draw: st.DrawFn) -> tuple[float, list[int], list[float]]:
    tokens = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return draw(SCORE), tokens, [draw(SCORE) for _ in tokens[1:]]


GROUPS = st.lists(completions(), min_size=2, max_size=5)


def by_step(credit: torch.Tensor, tokens: list[int]) -> list[float]:
    """The credit of each step, which all its tokens share."""
    pieces = credit.split(tokens)
    assert all(len(set(piece.tolist())) == 1 for piece in pieces)
    return [float(piece[0]) for piece in pieces]


@given(whole=GROUPS)
def test_a_completions_steps_add_up_to_its_reward_less_the_prompts_value(whole) -> None:
    rewards = [reward for reward, _, _ in whole]
    for number, (credit, (reward, tokens, _)) in enumerate(zip(vine(group(*whole)), whole, strict=True)):
        siblings = [other for place, other in enumerate(rewards) if place != number]
        assert sum(by_step(credit, tokens)) == pytest.approx(reward - sum(siblings) / len(siblings), abs=1e-4)


@given(whole=GROUPS, value=SCORE)
def test_where_nothing_changes_the_expectation_only_the_last_step_earns(whole, value: float) -> None:
    """All siblings of the first score `value`, as do all its states."""
    reward, tokens, values = whole[0]
    constant = [(reward, tokens, [value] * len(values)), *[(value, lengths, states) for _, lengths, states in whole[1:]]]
    steps = by_step(vine(group(*constant))[0], tokens)
    assert steps[:-1] == [0.0] * (len(tokens) - 1)
    assert steps[-1] == pytest.approx(reward - value, abs=1e-5)


@given(whole=GROUPS, order=st.randoms(use_true_random=False))
def test_the_order_of_completions_does_not_matter(whole, order) -> None:
    places = list(range(len(whole)))
    order.shuffle(places)
    straight = vine(group(*whole))
    for place, credit in zip(places, vine(group(*[whole[place] for place in places])), strict=True):
        assert torch.allclose(credit, straight[place], atol=1e-5)


@given(whole=GROUPS, shift=SCORE)
def test_a_constant_added_to_every_score_changes_nothing(whole, shift: float) -> None:
    shifted = [(reward + shift, tokens, [value + shift for value in values]) for reward, tokens, values in whole]
    for credit, other in zip(vine(group(*whole)), vine(group(*shifted)), strict=True):
        assert torch.allclose(credit, other, atol=1e-5)


@given(whole=GROUPS, other=SCORE)
def test_a_state_between_two_steps_moves_credit_between_them_alone(whole, other: float) -> None:
    reward, tokens, values = whole[0]
    if not values:
        return
    changed = [(reward, tokens, [other, *values[1:]]), *whole[1:]]
    before, after = (by_step(vine(group(*each))[0], tokens) for each in (whole, changed))
    assert before[2:] == after[2:]
    assert before[0] + before[1] == pytest.approx(after[0] + after[1], abs=1e-4)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=30), max_steps=st.integers(1, 12))
def test_joined_steps_end_where_steps_ended_and_none_is_much_longer_than_another(lengths: list[int], max_steps: int) -> None:
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    joined = join_steps(ends, max_steps)
    assert set(joined) <= set(ends) and joined[-1] == ends[-1] and len(joined) == min(len(ends), max_steps)
    sizes = [ends.index(end) - before for before, end in zip((-1, *[ends.index(end) for end in joined]), joined, strict=False)]
    assert max(sizes) - min(sizes) <= 1
