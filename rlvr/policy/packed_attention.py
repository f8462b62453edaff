"""Attention over a packed token axis: who sees whom comes from a `PackedLayout`, and no key is touched that no query of the row may see.

Rows of like shape form a block; each block is one batched matrix product. On CPU the products are written out with their own backward,
because PyTorch's fused kernel is slow there in bfloat16 (docs/decisions/0002); elsewhere, and for very long rows, the fused kernel is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlvr.attention import masked_attention, visible_keys
from rlvr.batch import PackedLayout

BLOCK_FILL = 0.5  # A row joins a block if its queries times keys fill at least this share of the block's largest row.
# Shapes are rounded to few, because the CPU's matrix library builds a kernel for each new one, which takes longer than running it.
BLOCK_ROWS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
ROW_FILL = 0.75  # Rows are filled up to the next of these sizes if they make this share of it, else split.
LENGTH_STEP = 16
PLAIN_MAX_AREA = 1 << 21  # Queries times keys past which the fused kernel's saved memory outweighs its slow backward.
HIDDEN_SCORE = -1e30  # Far below every score and finite, so that a row seeing nothing averages instead of becoming NaN.


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What a layer told its attention."""

    scaling: float
    sliding_window: int | None
    softcap: float | None


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows [R] of one shape: their tokens as indices into the packed axis."""

    query_index: Tensor
    query_mask: Tensor
    key_index: Tensor
    key_mask: Tensor
    query_start: Tensor

    def visible(self, sliding_window: int | None) -> Tensor:
        """Tell which keys each query sees, [R, Q, K], or [1, Q, K] where all rows agree; padded keys are seen by none."""
        rows = slice(0, 1) if self.uniform else slice(None)
        steps = torch.arange(self.query_index.shape[1], device=self.query_index.device)
        positions = self.query_start[rows, None] + steps
        keys = torch.arange(self.key_index.shape[1], device=self.query_index.device).expand(positions.shape[0], -1)
        return visible_keys(positions, keys, sliding_window) & self.key_mask[rows, None, :]

    @property
    def uniform(self) -> bool:
        """Whether all rows have the same number of queries and keys."""
        return bool(self.query_mask.all()) and bool(self.key_mask.all())

    @property
    def causal(self) -> bool:
        """Whether query i sees keys 0 … i and no more. What is filled up stands behind all that is real, so no real query sees it."""
        return self.query_index.shape == self.key_index.shape and not bool(self.query_start.any())


@dataclass(frozen=True, slots=True)
class _HeadIndex:
    """Gathers tokens-by-heads rows [T * H, D] into the blocks' rows and back.

    `gather` lists, block after block, the source of every (row, head, step); `padding` the places among them that are padding;
    `scatter` the place of every (token, head), or None where a token stands in several places, as keys of a shared prompt do. Of the
    `num_rows` rows the first `num_real` are of tokens and the rest filling, zero in every result.
    """

    gather: Tensor
    padding: Tensor
    scatter: Tensor | None
    num_rows: int
    num_real: int


class PackedAttention:
    """The attention plan of one micro-batch; used for all layers of one forward pass and its backward."""

    def __init__(self, layout: PackedLayout, *, num_tokens: int, length_step: int = 1) -> None:
        """`length_step`: states have `padded_length` tokens, the next multiple of it; those behind `num_tokens` are filling."""
        self._num_tokens = num_tokens
        self.padded_length = -(-num_tokens // length_step) * length_step
        self._blocks = _make_blocks(layout)
        self.plain = layout.query_index.device.type == "cpu" and all(
            block.query_index.shape[1] * block.key_index.shape[1] <= PLAIN_MAX_AREA for block in self._blocks
        )
        if not self.plain:
            self._blocks = _make_blocks(_asking_whole_rows(layout), query_lengths=layout.key_mask.sum(1).tolist())
        self._queries_of: dict[int, _HeadIndex] = {}
        self._keys_of: dict[int, _HeadIndex] = {}
        self._hidden: dict[tuple[int | None, torch.dtype], list[Tensor]] = {}
        self.calls: dict[int, AttentionCall] = {}

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "1 H T D"],
        key: Float[Tensor, "1 Hkv T D"],
        value: Float[Tensor, "1 Hkv T Dv"],
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "1 T H Dv"]:
        """Let every packed token attend within its row; computes in autocast's type where autocast is on."""
        self.calls[layer] = AttentionCall(scaling, sliding_window, softcap)
        device = query.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
        rows = [_token_major(states, dtype) for states in (query, key, value)]
        with torch.autocast(device, enabled=False):
            if self.plain and softcap is None:
                return _PlainAttention.apply(*rows, self, scaling, sliding_window).unsqueeze(0)
            return self._fused(*rows, scaling, sliding_window, softcap).unsqueeze(0)

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None) -> Tensor:
        num_heads, num_key_heads = query.shape[1], key.shape[1]
        queries = _Gather.apply(query.flatten(0, 1), self.queries(num_heads))
        keys, values = (_Gather.apply(states.flatten(0, 1), self.keys(num_key_heads)) for states in (key, value))
        attended = []
        query_from = key_from = 0
        for block in self._blocks:
            num_rows, query_length = block.query_index.shape
            key_length = block.key_index.shape[1]
            query_to = query_from + num_rows * num_heads * query_length
            key_to = key_from + num_rows * num_key_heads * key_length
            block_queries = queries[query_from:query_to].view(num_rows, num_heads, query_length, -1)
            block_keys, block_values = (s[key_from:key_to].view(num_rows, num_key_heads, key_length, -1) for s in (keys, values))
            visible = None if block.causal and window is None else self._visible_or_padding(block, window)
            out = masked_attention(block_queries, block_keys, block_values, visible, scaling=scaling, softcap=softcap)
            attended.append(out.reshape(num_rows * num_heads * query_length, -1))
            query_from, key_from = query_to, key_to
        return _Scatter.apply(torch.cat(attended), self.queries(num_heads)).view(query.shape[0], num_heads, -1)

    @staticmethod
    def _visible_or_padding(block: _Block, window: int | None) -> Tensor:
        # Queries that are padding see everything: a row that sees nothing is NaN in the fused kernel.
        return (block.visible(window) | ~block.query_mask[: 1 if block.uniform else None, :, None]).unsqueeze(1)

    @property
    def blocks(self) -> list[_Block]:
        return self._blocks

    def queries(self, num_heads: int) -> _HeadIndex:
        if num_heads not in self._queries_of:
            pairs = [(block.query_index, block.query_mask) for block in self._blocks]
            self._queries_of[num_heads] = _head_index(pairs, num_heads, self._num_tokens, self.padded_length)
        return self._queries_of[num_heads]

    def keys(self, num_heads: int) -> _HeadIndex:
        if num_heads not in self._keys_of:
            pairs = [(block.key_index, block.key_mask) for block in self._blocks]
            self._keys_of[num_heads] = _head_index(pairs, num_heads, self._num_tokens, self.padded_length)
        return self._keys_of[num_heads]

    def hidden_scores(self, window: int | None, dtype: torch.dtype) -> list[Tensor]:
        """What to add to each block's scores so that keys out of sight get no weight, [R or 1, 1, Q, K]."""
        if (window, dtype) not in self._hidden:
            masks = [block.visible(window).unsqueeze(1) for block in self._blocks]
            self._hidden[window, dtype] = [torch.zeros(m.shape, dtype=dtype, device=m.device).masked_fill_(~m, HIDDEN_SCORE) for m in masks]
        return self._hidden[window, dtype]


def _token_major(states: Float[Tensor, "1 H T D"], dtype: torch.dtype) -> Float[Tensor, "T H D"]:
    return states.to(dtype).squeeze(0).transpose(0, 1).contiguous()


def _asking_whole_rows(layout: PackedLayout) -> PackedLayout:
    """Let a shared prompt's tokens ask once more in each row, to no effect: the row is then causal from its first token on.

    The fused kernel knows that pattern; for any other it needs a mask of queries times keys, which no long row can afford.
    """
    steps = torch.arange(layout.key_index.shape[1], device=layout.key_index.device)
    own = layout.key_mask & (steps >= layout.query_start[:, None])
    return PackedLayout(layout.key_index, own, layout.key_index, layout.key_mask, torch.zeros_like(layout.query_start))


def _make_blocks(layout: PackedLayout, query_lengths: list[int] | None = None) -> list[_Block]:
    """Group rows of like shape, so that little is computed on the padding between them, into blocks of few different shapes.

    `query_lengths`: how far each row's queries reach, where that is not their number.
    """
    query_lengths = layout.query_mask.sum(1).tolist() if query_lengths is None else query_lengths
    key_lengths = layout.key_mask.sum(1).tolist()
    order = sorted(range(len(query_lengths)), key=lambda r: (-key_lengths[r], -query_lengths[r], r))
    blocks = []
    while order:
        group, num_rows = _next_rows(order, query_lengths, key_lengths)
        order = order[len(group) :]
        rows = torch.tensor(group, device=layout.query_index.device)
        query_length = _rounded(max(query_lengths[r] for r in group))
        key_length = _rounded(key_lengths[group[0]])
        filling = num_rows - len(group)
        blocks.append(
            _Block(
                _resized(layout.query_index[rows], filling, query_length),
                _resized(layout.query_mask[rows], filling, query_length),
                _resized(layout.key_index[rows], filling, key_length),
                _resized(layout.key_mask[rows], filling, key_length),
                F.pad(layout.query_start[rows], (0, filling)),
            )
        )
    return blocks


def _next_rows(order: list[int], query_lengths: list[int], key_lengths: list[int]) -> tuple[list[int], int]:
    """Take from the longest rows those that fill a block well, and say how many rows the block has."""
    longest_query, count = 0, 0
    for row in order:
        wider = max(longest_query, query_lengths[row])
        if count and query_lengths[row] * key_lengths[row] < BLOCK_FILL * wider * key_lengths[order[0]]:
            break
        longest_query, count = wider, count + 1
    for num_rows in BLOCK_ROWS:
        if count >= ROW_FILL * num_rows:
            return order[: min(count, num_rows)], num_rows
    raise AssertionError("a block of one row always fits")


def _rounded(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _resized(rectangle: Tensor, num_more_rows: int, length: int) -> Tensor:
    """Cut or fill columns to `length` and add rows; what is filled is index 0, masked out."""
    return F.pad(rectangle[:, :length], (0, length - min(length, rectangle.shape[1]), 0, num_more_rows))


def _head_index(pairs: list[tuple[Tensor, Tensor]], num_heads: int, num_tokens: int, padded_length: int) -> _HeadIndex:
    device = pairs[0][0].device
    heads = torch.arange(num_heads, device=device)[None, :, None]
    gather = torch.cat([(index[:, None, :] * num_heads + heads).flatten() for index, _ in pairs])
    present = torch.cat([mask[:, None, :].expand(-1, num_heads, -1).flatten() for _, mask in pairs])
    places = present.nonzero().squeeze(1)
    scatter = None
    if len(places) == num_tokens * num_heads:
        scatter = torch.zeros(padded_length * num_heads, dtype=torch.long, device=device)
        scatter[gather[places]] = places
    return _HeadIndex(gather, (~present).nonzero().squeeze(1), scatter, padded_length * num_heads, num_tokens * num_heads)


def _collect(rows: Tensor, index: _HeadIndex) -> Tensor:
    """Sum, for every (token, head), the rows that stand for it; float32 sums where there are several."""
    if index.scatter is not None:
        out = rows.index_select(0, index.scatter)
        out[index.num_real :].zero_()
        return out
    rows = rows.index_fill(0, index.padding, 0.0) if len(index.padding) else rows
    out = torch.zeros(index.num_rows, rows.shape[1], dtype=torch.float32, device=rows.device)
    return out.index_add_(0, index.gather, rows.float()).to(rows.dtype)


class _Gather(torch.autograd.Function):
    """Rows [T * H, D] to block rows; the gradient of a padded place is dropped."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: _HeadIndex) -> Tensor:
        ctx.index = index
        return rows.index_select(0, index.gather)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _collect(grad, ctx.index), None


class _Scatter(torch.autograd.Function):
    """Block rows back to rows [T * H, D]; a padded place gets gradient zero."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: _HeadIndex) -> Tensor:
        ctx.index = index
        return _collect(rows, index)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.index.gather).index_fill_(0, ctx.index.padding, 0.0), None


class _PlainAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, plan: PackedAttention, scaling: float, window: int | None) -> Tensor:
        attended, saved = plain_attention_forward(plan, query, key, value, scaling, window)
        ctx.save_for_backward(*saved)
        ctx.plan, ctx.scaling, ctx.window, ctx.num_heads, ctx.num_key_heads = plan, scaling, window, query.shape[1], key.shape[1]
        return attended

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = plain_attention_backward(ctx.plan, ctx.saved_tensors, grad, ctx.num_heads, ctx.num_key_heads, ctx.scaling, ctx.window)
        return *grads, None, None, None


def plain_attention_forward(
    plan: PackedAttention,
    query: Float[Tensor, "T H D"],
    key: Float[Tensor, "T Hkv D"],
    value: Float[Tensor, "T Hkv Dv"],
    scaling: float,
    window: int | None,
) -> tuple[Float[Tensor, "T H Dv"], list[Tensor]]:
    """softmax(Q K^T * scaling + hidden) V, block by block, query heads of one key head side by side so that keys are never repeated.

    Returns what the backward needs beside the result.
    """
    num_heads, num_key_heads = query.shape[1], key.shape[1]
    query_heads, key_heads = plan.queries(num_heads), plan.keys(num_key_heads)
    queries = query.reshape(-1, query.shape[2]).index_select(0, query_heads.gather)
    keys = key.reshape(-1, key.shape[2]).index_select(0, key_heads.gather)
    values = value.reshape(-1, value.shape[2]).index_select(0, key_heads.gather)
    attended = torch.empty(len(queries), value.shape[2], dtype=value.dtype, device=value.device)
    weights = []
    for block, hidden, (q, out), (k, v) in _per_block(plan, window, num_heads, num_key_heads, [queries, attended], [keys, values]):
        scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scaling)
        scores.view(block.query_index.shape[0], num_heads, -1, k.shape[1]).add_(hidden)
        weights.append(torch.softmax(scores, -1))
        torch.bmm(weights[-1], v, out=out)
    return _collect(attended, query_heads).view(query.shape[0], num_heads, -1), [queries, keys, values, *weights]


def plain_attention_backward(
    plan: PackedAttention,
    saved: Sequence[Tensor],
    grad: Float[Tensor, "T H Dv"],
    num_heads: int,
    num_key_heads: int,
    scaling: float,
    window: int | None,
) -> tuple[Float[Tensor, "T H D"], Float[Tensor, "T Hkv D"], Float[Tensor, "T Hkv Dv"]]:
    """Return the gradients of query, key and value."""
    queries, keys, values, *weights = saved
    query_heads, key_heads = plan.queries(num_heads), plan.keys(num_key_heads)
    grads = grad.reshape(-1, grad.shape[2]).index_select(0, query_heads.gather)
    if len(query_heads.padding):
        grads.index_fill_(0, query_heads.padding, 0.0)
    grad_queries, grad_keys, grad_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    like_queries, like_keys = [queries, grads, grad_queries], [keys, values, grad_keys, grad_values]
    blocks = _per_block(plan, window, num_heads, num_key_heads, like_queries, like_keys)
    for (_, _, (q, g, grad_q), (k, v, grad_k, grad_v)), weight in zip(blocks, weights, strict=True):
        torch.bmm(weight.transpose(1, 2), g, out=grad_v)
        grad_scores = torch.ops.aten._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), weight, -1, weight.dtype)
        torch.baddbmm(grad_q, grad_scores, k, beta=0, alpha=scaling, out=grad_q)
        torch.baddbmm(grad_k, grad_scores.transpose(1, 2), q, beta=0, alpha=scaling, out=grad_k)
    pairs = ((grad_queries, query_heads, num_heads), (grad_keys, key_heads, num_key_heads), (grad_values, key_heads, num_key_heads))
    return tuple(_collect(rows, heads).view(grad.shape[0], count, -1) for rows, heads, count in pairs)


def _per_block(
    plan: PackedAttention, window: int | None, num_heads: int, num_key_heads: int, like_queries: list[Tensor], like_keys: list[Tensor]
) -> Iterator[tuple[_Block, Tensor, list[Tensor], list[Tensor]]]:
    """Cut gathered rows into blocks: [R * Hkv, (H / Hkv) * Q, D] of those like queries, [R * Hkv, K, D] of those like keys."""
    query_from = key_from = 0
    for block, hidden in zip(plan.blocks, plan.hidden_scores(window, like_queries[0].dtype), strict=True):
        num_rows = block.query_index.shape[0]
        query_to = query_from + num_rows * num_heads * block.query_index.shape[1]
        key_to = key_from + num_rows * num_key_heads * block.key_index.shape[1]
        batch = num_rows * num_key_heads
        as_queries = [t[query_from:query_to].view(batch, -1, t.shape[1]) for t in like_queries]
        as_keys = [t[key_from:key_to].view(batch, -1, t.shape[1]) for t in like_keys]
        yield block, hidden, as_queries, as_keys
        query_from, key_from = query_to, key_to
