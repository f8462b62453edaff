"""Prompts in an endless shuffled order whose only state is a position, so that resuming costs nothing.

Each epoch is a permutation computed entry by entry by a keyed Feistel network with cycle walking (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002): no list of indices is kept, and no draw depends on an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlvr.config import DataConfig
from rlvr.data.chat import render
from rlvr.errors import DataError
from rlvr.seeding import derive_seed
from rlvr.types import Prompt
from verifiers.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEISTEL_ROUNDS = 8
"""Four suffice for large domains (Luby and Rackoff 1988); data sets of a dozen rows have halves of two bits and need more."""
MASK_64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts that fit, in the order of their problems; `num_too_long` did not and were dropped."""

    prompts: list[Prompt]
    num_too_long: int


def build_prompts(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, config: DataConfig) -> PromptSet:
    """Render every problem, dropping prompts longer than `max_prompt_tokens`; none is truncated, since half a question has another answer.

    Raises: DataError: none remain.
    """
    prompts = [Prompt(problem, render(problem, tokenizer, config)) for problem in problems]
    kept = [prompt for prompt in prompts if len(prompt.token_ids) <= config.max_prompt_tokens]
    if not kept:
        shortest = min((len(prompt.token_ids) for prompt in prompts), default=0)
        raise DataError(
            f"{config.path}: all {len(prompts)} prompts are longer than data.max_prompt_tokens={config.max_prompt_tokens}; "
            f"the shortest has {shortest} tokens"
        )
    return PromptSet(kept, len(prompts) - len(kept))


class PromptStream:
    """An endless sequence of prompts: every prompt once an epoch, each epoch in another order.

    Holds no position: `prompt_at` takes it, and is a pure function of it. A run is resumed by going on from the position it had.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        if not prompts:
            raise DataError("there are no prompts to draw from")
        self._prompts = prompts
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of prompts in an epoch."""
        return len(self._prompts)

    def prompt_at(self, index: int) -> Prompt:
        """Return the prompt at a place, counted from 0, in constant time and memory."""
        return self._prompts[shuffled_index(index, len(self._prompts), self._seed)]


def shuffled_index(index: int, size: int, seed: int) -> int:
    """Return which of `size` items stands at place `index` of the endless shuffled order.

    Over places k * size … (k + 1) * size - 1 every item occurs once.
    """
    if index < 0 or size < 1:
        raise ValueError(f"place {index} of {size} items does not exist")
    epoch, place = divmod(index, size)
    key = derive_seed(seed, "prompt order", epoch)
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    # The network permutes 0 … 4**half_bits - 1, fewer than 4 * size numbers (4 when size is 1). Following it until it lands below `size`
    # permutes those below; that takes fewer than four steps on average.
    place = _feistel(place, half_bits, key)
    while place >= size:
        place = _feistel(place, half_bits, key)
    return place


def _feistel(value: int, half_bits: int, key: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for round_index in range(FEISTEL_ROUNDS):
        left, right = right, left ^ (_mix(right + (round_index << half_bits), key) & mask)
    return left << half_bits | right


def _mix(value: int, key: int) -> int:
    """Hash 64 bits with the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value * 0x9E3779B97F4A7C15 + key) & MASK_64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK_64
    return value ^ value >> 31
