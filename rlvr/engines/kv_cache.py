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

BLOCK = 16
"""The cache grows by at least so many columns, to a multiple of so many."""


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
    """Keys and values of up to `max_rows` rows; rows 0 … `num_rows` - 1 are in use. Also the attention plan of a decoding step.

    Attention reads the buffers whole, free columns masked: oneDNN's bfloat16 products copy whatever is not contiguous, which costs more
    than the few free columns (docs/decisions/0001).
    """

    def __init__(self, like: PrefillPlan, max_rows: int) -> None:
        """`like`: a prefill of the same model, for the number of layers and their shapes."""
        device = like.start.device
        self.num_rows = 0
        self.length = 0
        self._start = torch.zeros(max_rows, dtype=torch.long, device=device)
        self._keys = [key.new_empty(max_rows, key.shape[1], 0, key.shape[3]) for key in like.keys]
        self._values = [value.new_empty(max_rows, value.shape[1], 0, value.shape[3]) for value in like.values]
        # Added to scores: 0 on the columns a row sees, -inf before its start and after `length`.
        self._mask: Float[Tensor, "R 1 1 C"] = torch.empty(max_rows, 1, 1, 0, device=device)

    def place(self, prefill: PrefillPlan, source: Int[Tensor, " N"]) -> None:
        """Append one row per entry of `source`, a copy of that prefilled prompt."""
        width = prefill.keys[0].shape[2]
        if width > self.length:
            self._resize(at_least=width)
        rows = slice(self.num_rows, self.num_rows + len(source))
        columns = slice(self.length - width, self.length)
        for layer, (key, value) in enumerate(zip(prefill.keys, prefill.values, strict=True)):
            # Other columns keep finite leftovers: they get no weight, and only NaN would show through that.
            self._keys[layer][rows, :, columns] = key[source]
            self._values[layer][rows, :, columns] = value[source]
        self._start[rows] = self.length - width + prefill.start[source]
        self.num_rows += len(source)
        self._remask()

    def begin_step(self) -> None:
        """Open the column that the next forward writes."""
        if self.length == self._mask.shape[-1]:
            self._resize()
            self._remask()
        self._mask[..., self.length] = 0.0
        self.length += 1

    def compact(self, source: Int[Tensor, " M"], target: Int[Tensor, " M"], num_rows: int) -> None:
        """Move rows `source` over rows `target` and keep the first `num_rows`."""
        for buffer in (*self._keys, *self._values, self._start, self._mask):
            buffer[target] = buffer[source]
        self.num_rows = num_rows

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
        keys, values, mask = self._keys[layer][:rows], self._values[layer][:rows], self._mask[:rows]
        keys[:, :, self.length - 1] = key[:, :, 0]
        values[:, :, self.length - 1] = value[:, :, 0]
        if sliding_window is not None and sliding_window < self.length:
            window = slice(self.length - sliding_window, self.length)
            keys, values, mask = keys[:, :, window], values[:, :, window], mask[..., window]
        # Query heads that share a key head become the rows of one small matrix product, so keys are read once and never repeated.
        scaled = query if scaling == 1.0 else query * scaling
        scores = torch.matmul(scaled.view(rows, key.shape[1], -1, dim), keys.transpose(2, 3))
        if softcap is not None:
            scores = softcap * torch.tanh(scores.float() / softcap)
        weights = torch.softmax(scores + mask, -1, dtype=torch.float32).to(values.dtype)
        return torch.matmul(weights, values).view(rows, 1, heads, -1)

    def _remask(self) -> None:
        column = torch.arange(self._mask.shape[-1], device=self._mask.device)
        hidden = (column < self._start[:, None, None, None]) | (column >= self.length)
        self._mask.zero_().masked_fill_(hidden, float("-inf"))

    def _resize(self, at_least: int = 0) -> None:
        """Move to larger buffers, dropping the columns that lie before every row's start."""
        used = self.length - int(self._start[: self.num_rows].min()) if self.num_rows else 0
        length = max(used, at_least)
        # A growing share of the length keeps the copying, summed over all growths, proportional to the final length.
        capacity = BLOCK * ((length + max(BLOCK, length // 8) + BLOCK - 1) // BLOCK)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = old.new_zeros(*old.shape[:2], capacity, old.shape[3])
                if used:
                    buffers[layer][: self.num_rows, :, length - used : length] = old[: self.num_rows, :, self.length - used : self.length]
        self._mask = self._mask.new_empty(len(self._mask), 1, 1, capacity)
        self._start += length - self.length
        self.length = length
