"""The keys and values of the rows being decoded, and the attention plans that fill and read them.

All rows end at the same column, `length`, and begin at their own, `start`: a step writes one column of every row with one copy, and
attention reads a contiguous window. A row that leaves is overwritten by the last one, so leaving and joining cost nothing to the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlvr.attention import masked_attention, visible_keys

GROWTH = 64
"""Columns added at least when the cache is full."""


@dataclass(slots=True)
class PrefillPlan:
    """Attends causally within left-padded prompts and keeps their keys and values, layer by layer."""

    start: Int[Tensor, " B"]
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    _visible: dict[int | None, Tensor | None] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B H T D"],
        key: Float[Tensor, "B Hkv T D"],
        value: Float[Tensor, "B Hkv T D"],
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "B T H D"]:
        self.keys.append(key)
        self.values.append(value)
        if sliding_window not in self._visible:
            self._visible[sliding_window] = self._visible_in(query.shape[2], sliding_window)
        return masked_attention(query, key, value, self._visible[sliding_window], scaling=scaling, softcap=softcap).transpose(1, 2)

    def _visible_in(self, length: int, sliding_window: int | None) -> Bool[Tensor, "B 1 T T"] | None:
        """True where a query sees a key; None when plain causal attention is right. A pad sees itself, so that no row is empty."""
        if (sliding_window is None or sliding_window >= length) and not bool(self.start.any()):
            return None
        column = torch.arange(length, device=self.start.device)
        seen = visible_keys(column, column, sliding_window) & (column >= self.start[:, None, None])
        return (seen | (column[:, None] == column)).unsqueeze(1)


class KvCache:
    """Keys and values of up to `max_rows` rows; rows 0 … `num_rows` - 1 are in use. Also the attention plan of a decoding step."""

    def __init__(self, like: PrefillPlan, max_rows: int) -> None:
        """`like`: a prefill of the same model, for the number of layers and their shapes."""
        self.max_rows = max_rows
        self.num_rows = 0
        self.length = 0
        self._capacity = 0
        self._start = torch.zeros(max_rows, dtype=torch.long, device=like.start.device)
        self._keys = [key.new_empty(max_rows, key.shape[1], 0, key.shape[3]) for key in like.keys]
        self._values = [value.new_empty(max_rows, value.shape[1], 0, value.shape[3]) for value in like.values]
        self._hidden: Float[Tensor, "R 1 1 C"] | None = None

    def place(self, prefill: PrefillPlan, source: Int[Tensor, " N"]) -> None:
        """Append one row per entry of `source`, a copy of that prefilled prompt."""
        width = prefill.keys[0].shape[2]
        if width > self.length:
            self._resize(at_least=width)
        rows = slice(self.num_rows, self.num_rows + len(source))
        columns = slice(self.length - width, self.length)
        for layer, (key, value) in enumerate(zip(prefill.keys, prefill.values, strict=True)):
            # Columns before a row's start keep finite leftovers: they get no weight, and only NaN would show through that.
            self._keys[layer][rows, :, columns] = key[source]
            self._values[layer][rows, :, columns] = value[source]
        self._start[rows] = self.length - width + prefill.start[source]
        self.num_rows += len(source)
        self._remask()

    def begin_step(self) -> None:
        """Open the column that the next forward writes."""
        if self.length == self._capacity:
            self._resize()
            self._remask()
        self.length += 1

    def compact(self, source: Int[Tensor, " M"], target: Int[Tensor, " M"], num_rows: int) -> None:
        """Move rows `source` over rows `target` and keep the first `num_rows`."""
        for buffer in (*self._keys, *self._values):
            buffer[target, :, : self.length] = buffer[source, :, : self.length]
        self._start[target] = self._start[source]
        self.num_rows = num_rows
        self._remask()

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "R H 1 D"],
        key: Float[Tensor, "R Hkv 1 D"],
        value: Float[Tensor, "R Hkv 1 D"],
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "R 1 H D"]:
        rows, heads, _, dim = query.shape
        keys, values = self._keys[layer][:rows], self._values[layer][:rows]
        keys[:, :, self.length - 1] = key[:, :, 0]
        values[:, :, self.length - 1] = value[:, :, 0]
        low = 0 if sliding_window is None else max(0, self.length - sliding_window)
        keys, values = keys[:, :, low : self.length], values[:, :, low : self.length]
        # Query heads that share a key head become the rows of one small matrix product, so keys are read once and never repeated.
        folded = (query * scaling).to(keys.dtype).view(rows, key.shape[1], -1, dim)
        scores = torch.matmul(folded, keys.transpose(2, 3))
        if softcap is not None:
            scores = softcap * torch.tanh(scores.float() / softcap)
        if self._hidden is not None:
            scores = scores + self._hidden[:rows, :, :, low : self.length]
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(values.dtype)
        return torch.matmul(weights, values).view(rows, 1, heads, -1)

    def _remask(self) -> None:
        """Rebuild the additive mask that hides columns before a row's start, or drop it when there are none."""
        start = self._start[: self.num_rows]
        self._hidden = None
        if bool(start.any()):
            column = torch.arange(self._capacity, device=start.device)
            mask = torch.zeros(self.num_rows, 1, 1, self._capacity, device=start.device)
            self._hidden = mask.masked_fill_(column < start[:, None, None, None], float("-inf"))

    def _resize(self, at_least: int = 0) -> None:
        """Move to larger buffers, dropping the columns that lie before every row's start."""
        used = self.length - int(self._start[: self.num_rows].min()) if self.num_rows else 0
        length = max(used, at_least)
        capacity = length + max(GROWTH, length // 2)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = old.new_zeros(self.max_rows, old.shape[1], capacity, old.shape[3])
                if used:
                    buffers[layer][: self.num_rows, :, length - used : length] = old[: self.num_rows, :, self.length - used : self.length]
        self._start += length - self.length
        self.length, self._capacity = length, capacity
