"""The rows being decoded: prompts join, every step adds one token to each, finished rows leave.

Two kinds with the same face: `CachedRows` over rlvr's own cache, and `PaddedRows` over transformers' cache for models without attention
backends. Neither samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlvr.engines.kv_cache import KvCache, PrefillPlan
from rlvr.engines.networks import ModuleCopy, Network

PREFILL_TOKENS = 8192
"""Prompt tokens, padding included, that go through the model at once."""


@runtime_checkable
class Rows(Protocol):
    """Live rows are numbered from 0 without gaps."""

    can_refill: bool
    """Whether prompts may join while other rows live."""

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Float[Tensor, "N V"]:
        """Append `copies[i]` rows of prompt i and return the logits of each new row's first token."""
        ...

    def step(self, tokens: Int[Tensor, " R"]) -> Float[Tensor, "R V"]:
        """Append one token to every row and return the logits of the next."""
        ...

    def compact(self, source: Int[Tensor, " M"], target: Int[Tensor, " M"], num_rows: int) -> None:
        """Move rows `source` over rows `target` and keep the first `num_rows`."""
        ...


class CachedRows:
    """Rows over rlvr's cache: a prompt is computed once for all its copies, and prompts join at any time."""

    can_refill = True

    def __init__(self, network: Network, *, max_rows: int, device: torch.device) -> None:
        self._network = network
        self._max_rows = max_rows
        self._device = device
        self._cache: KvCache | None = None
        self._positions = torch.zeros(max_rows, dtype=torch.long, device=device)

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Float[Tensor, "N V"]:
        logits = []
        for begin, end in prefill_chunks([len(prompt) for prompt in prompts]):
            tokens, positions, start = left_pad(prompts[begin:end], self._device)
            plan = PrefillPlan(start)
            last = self._network(tokens, positions, plan, last_only=True)[:, -1]
            self._cache = self._cache or KvCache(plan, self._max_rows)
            counts = torch.tensor(copies[begin:end], device=self._device)
            source = torch.repeat_interleave(torch.arange(end - begin, device=self._device), counts)
            first = self._cache.num_rows
            self._cache.place(plan, source)
            self._positions[first : first + len(source)] = tokens.shape[1] - start[source]
            logits.append(last[source])
        return torch.cat(logits)

    def step(self, tokens: Int[Tensor, " R"]) -> Float[Tensor, "R V"]:
        positions = self._positions[: len(tokens)]
        self._cache.begin_step()
        logits = self._network(tokens[:, None], positions[:, None], self._cache, last_only=True)[:, -1]
        positions += 1
        return logits

    def compact(self, source: Int[Tensor, " M"], target: Int[Tensor, " M"], num_rows: int) -> None:
        self._cache.compact(source, target, num_rows)
        self._positions[target] = self._positions[source]


class PaddedRows:
    """Rows over transformers' own cache with left padding; a batch is decoded to its end before the next begins."""

    can_refill = False

    def __init__(self, module: ModuleCopy, *, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._cache = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Float[Tensor, "N V"]:
        from transformers import DynamicCache

        rows = [prompt for prompt, count in zip(prompts, copies, strict=True) for _ in range(count)]
        tokens, positions, start = left_pad(rows, self._device)
        self._mask = (torch.arange(tokens.shape[1], device=self._device) >= start[:, None]).long()
        self._cache = DynamicCache(config=self._module.model.config)
        return self._forward(tokens, positions)

    def step(self, tokens: Int[Tensor, " R"]) -> Float[Tensor, "R V"]:
        positions = self._mask.sum(1, keepdim=True)
        self._mask = torch.cat((self._mask, self._mask.new_ones(len(tokens), 1)), 1)
        return self._forward(tokens[:, None], positions)

    def compact(self, source: Int[Tensor, " M"], target: Int[Tensor, " M"], num_rows: int) -> None:
        order = torch.arange(num_rows, device=self._device)
        order[target] = source
        self._cache.batch_select_indices(order)
        self._mask = self._mask[order]

    def _forward(self, tokens: Int[Tensor, "R T"], positions: Int[Tensor, "R T"]) -> Float[Tensor, "R V"]:
        output = self._module.model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()


def left_pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"], Int[Tensor, " B"]]:
    """Return tokens, positions and the column each prompt starts at. Pads are token 0 at position 0; no prompt sees them."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    start = torch.tensor([width - len(prompt) for prompt in prompts], device=device)
    positions = (torch.arange(width, device=device) - start[:, None]).clamp(min=0)
    return tokens, positions, start


def prefill_chunks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Cut prompts into runs whose padded size stays within `PREFILL_TOKENS`; a longer prompt is a run of its own."""
    chunks, begin, widest = [], 0, 0
    for end, length in enumerate(lengths):
        if end > begin and max(widest, length) * (end + 1 - begin) > PREFILL_TOKENS:
            chunks.append((begin, end))
            begin, widest = end, 0
        widest = max(widest, length)
    return [*chunks, (begin, len(lengths))]
