"""Drawing the next token of each row, and its log-prob under the distribution it was drawn from.

A row's randomness is a function of its own key and how many tokens it has, so what its neighbours do cannot change its draw.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlvr.seeding import derive_seed
from rlvr.types import Sampling

# SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195); its unsigned constants as signed 64-bit numbers.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def row_keys(sampling: Sampling) -> list[int]:
    """Return one 63-bit key per completion; without a seed the keys come from the operating system."""
    seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
    return [derive_seed(seed, "row", index) for index in range(sampling.num_samples)]


def uniforms(keys: Int[Tensor, "..."], counters: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return numbers in [0, 1), 24 bits, each a function of its (key, counter) alone; the two broadcast."""
    state = keys + (counters + 1) * GOLDEN_GAMMA
    state = (state ^ _shift(state, 30)) * MIX_1
    state = (state ^ _shift(state, 27)) * MIX_2
    return _shift(state ^ _shift(state, 31), 40).float() * 2.0**-24


def _shift(value: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Shift right as unsigned 64-bit numbers do: torch's shift repeats the sign."""
    return (value >> bits) & (2 ** (64 - bits) - 1)


@dataclass(frozen=True, slots=True)
class Picker:
    """The sampling rules of the live rows; what no row asks for is None and costs nothing."""

    temperature: Float[Tensor, "R 1"] | None
    greedy: Bool[Tensor, " R"] | None
    top_k: Int[Tensor, "R 1"] | None
    top_p: Float[Tensor, "R 1"] | None

    @classmethod
    def of(cls, rules: Sequence[Sampling], device: torch.device) -> Picker:
        """`rules`: the sampling of each row, in row order. Temperature 0 picks the likeliest token of the untempered distribution."""
        temperatures = [rule.temperature or 1.0 for rule in rules]
        return cls(
            temperature=torch.tensor(temperatures, device=device)[:, None] if any(t != 1 for t in temperatures) else None,
            greedy=torch.tensor([r.temperature == 0 for r in rules], device=device) if any(r.temperature == 0 for r in rules) else None,
            top_k=torch.tensor([r.top_k for r in rules], device=device)[:, None] if any(r.top_k > 0 for r in rules) else None,
            top_p=torch.tensor([r.top_p for r in rules], device=device)[:, None] if any(r.top_p < 1 for r in rules) else None,
        )

    def pick(self, logits: Float[Tensor, "R V"], noise: Float[Tensor, " R"]) -> tuple[Int[Tensor, " R"], Float[Tensor, " R"]]:
        """Return one token per row and its log-prob; equal noise gives equal tokens."""
        if self.temperature is not None:
            logits = logits / self.temperature
        if self.top_k is not None or self.top_p is not None:
            logits = self.truncate(logits)
        logprobs = torch.log_softmax(logits, -1)
        # Inverse transform sampling: the first token at which the summed probability passes the noise. The sum runs in double precision
        # inside torch; a threshold strictly below the total cannot fall off the end or on a token of probability 0.
        summed = logprobs.exp().cumsum(-1)
        total = summed[:, -1:]
        threshold = torch.minimum(noise[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(summed, threshold, right=True)[:, 0]
        if self.greedy is not None:
            tokens = torch.where(self.greedy, logits.argmax(-1), tokens)
        return tokens, logprobs.gather(1, tokens[:, None])[:, 0]

    def truncate(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """Give -inf to tokens outside the top k, then to those outside the smallest set whose probability reaches top p."""
        ordered, token = logits.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(logits.shape[-1], device=logits.device)
        dropped = torch.zeros_like(ordered, dtype=torch.bool)
        if self.top_k is not None:
            dropped |= (self.top_k > 0) & (rank >= self.top_k)
        if self.top_p is not None:
            probability = ordered.masked_fill(dropped, float("-inf")).softmax(-1)
            # A token stays when those before it do not reach top p; the likeliest always stays.
            dropped |= (self.top_p < 1) & (probability.cumsum(-1) - probability >= self.top_p) & (rank > 0)
        return logits.masked_fill(torch.zeros_like(dropped).scatter(1, token, dropped), float("-inf"))
