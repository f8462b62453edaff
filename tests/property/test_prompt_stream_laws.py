from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.data.prompt_stream import PromptStream, shuffled_index
from rlvr.errors import DataError
from rlvr.types import Prompt
from verifiers.types import Problem

SEEDS = st.integers(0, 2**63 - 1)


def stream(size: int, seed: int) -> PromptStream:
    return PromptStream([Prompt(Problem(str(n), (), {}), (n,)) for n in range(size)], seed)


@given(size=st.integers(1, 300), epoch=st.integers(0, 10**6), seed=SEEDS)
def test_every_prompt_comes_once_an_epoch(size: int, epoch: int, seed: int) -> None:
    order = [shuffled_index(epoch * size + place, size, seed) for place in range(size)]
    assert sorted(order) == list(range(size))


@given(size=st.integers(1, 50), start=st.integers(0, 200), seed=SEEDS)
def test_going_on_from_a_position_gives_what_an_uninterrupted_stream_gives(size: int, start: int, seed: int) -> None:
    uninterrupted = stream(size, seed)
    whole = [uninterrupted.prompt_at(index).token_ids for index in range(start + 20)]
    resumed = stream(size, seed)
    assert [resumed.prompt_at(index).token_ids for index in range(start, start + 20)] == whole[start:]


@given(index=st.integers(0, 10**15), size=st.integers(1, 10**12), seed=SEEDS)
def test_any_place_of_any_size_is_found_without_a_list(index: int, size: int, seed: int) -> None:
    assert 0 <= shuffled_index(index, size, seed) < size


def test_epochs_and_seeds_have_different_orders() -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return [shuffled_index(epoch * 100 + place, 100, seed) for place in range(100)]

    orders = [order(epoch, seed) for epoch in range(3) for seed in range(3)]
    # By chance two of 9 permutations agree in about one of 100 places; 10 would be a billion to one.
    for first in range(9):
        for second in range(first):
            assert sum(a == b for a, b in zip(orders[first], orders[second], strict=True)) < 10


@pytest.mark.parametrize("size", [2, 3, 5, 16, 17])
def test_each_item_is_as_likely_as_any_other_at_each_place(size: int) -> None:
    epochs = 2000
    for place in (0, size - 1):
        counts = Counter(shuffled_index(epoch * size + place, size, seed=0) for epoch in range(epochs))
        expected = epochs / size
        chi_squared = sum((counts[item] - expected) ** 2 / expected for item in range(size))
        # Mean size - 1, standard deviation sqrt(2 * (size - 1)); five of them are far beyond chance.
        assert chi_squared < (size - 1) + 5 * (2 * (size - 1)) ** 0.5 + 5


def test_neighbours_are_not_kept_together() -> None:
    size, epochs = 50, 200
    followed = 0
    for epoch in range(epochs):
        order = [shuffled_index(epoch * size + place, size, seed=3) for place in range(size)]
        followed += sum(b == a + 1 for a, b in zip(order, order[1:], strict=False))
    # In a random order an item is followed by its successor (size - 1) / size times an epoch on average: 196 in 200 epochs, deviation 14.
    assert 126 < followed < 266


def test_a_stream_of_nothing_and_a_place_before_the_first_are_errors() -> None:
    with pytest.raises(DataError, match="no prompts"):
        PromptStream([], seed=0)
    with pytest.raises(ValueError, match="place -1 of 3"):
        stream(3, 0).prompt_at(-1)
