"""Sequence parallelism: the processes of a group share the tokens of each micro-batch, for sequences too long for one of them.

Everything but attention looks at one token at a time, so each process computes a share of the packed tokens. For attention they exchange:
each gets all tokens of a share of the heads, attends, and gives the tokens back (DeepSpeed-Ulysses, arXiv:2309.14509). In each layer and
direction a process sends and gets queries, keys, values and what was attended: tokens x width / processes numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlvr.batch import MicroBatch
from rlvr.policy.packed_attention import PackedAttention


@dataclass(frozen=True, slots=True)
class Share:
    """One process's share of a micro-batch: `microbatch` with its tokens and scored tokens only, `attention` over all tokens, and `scored`,
    the places of its scored tokens among all."""

    microbatch: MicroBatch
    attention: UlyssesAttention
    scored: Tensor


@dataclass(frozen=True, slots=True)
class SequenceGroup:
    """This process's place in its group."""

    rank: int
    size: int
    group: Any

    def share(self, microbatch: MicroBatch) -> Share:
        """Cut out this process's tokens, an equal number for each; those behind the last are filling that nothing sees."""
        num_tokens = len(microbatch.token_ids)
        plan = PackedAttention(microbatch.layout, num_tokens=num_tokens, length_step=self.size)
        length = plan.padded_length // self.size
        begin = self.rank * length
        filling = (0, plan.padded_length - num_tokens)
        scored = ((microbatch.source_index >= begin) & (microbatch.source_index < begin + length)).nonzero().squeeze(1)
        mine = replace(
            microbatch,
            token_ids=F.pad(microbatch.token_ids, filling)[begin : begin + length],
            position_ids=F.pad(microbatch.position_ids, filling)[begin : begin + length],
            source_index=microbatch.source_index[scored] - begin,
            target_ids=microbatch.target_ids[scored],
        )
        return Share(mine, UlyssesAttention(plan, self), scored)

    def put_together(self, values: Float[Tensor, " n"], places: Tensor, num_scored: int) -> Float[Tensor, " N"]:
        """Return everyone's values on their places. Each process goes on with all of them and computes the same loss, so the gradient of
        its own is that of the loss, and the parameters' gradients are the sum over processes."""
        return _PutTogether.apply(values, places, num_scored, self.group)


class UlyssesAttention:
    """An attention plan (`rlvr.attention.AttentionPlan`) over tokens that a group of processes shares."""

    def __init__(self, plan: PackedAttention, sequence: SequenceGroup) -> None:
        self._plan = plan
        self._sequence = sequence

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "1 H t D"],
        key: Float[Tensor, "1 Hkv t D"],
        value: Float[Tensor, "1 Hkv t Dv"],
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "1 t H Dv"]:
        """See `AttentionPlan.attend`."""
        size = self._sequence.size
        if repeats := key.shape[1] % size:
            # Fewer key heads than processes: each gets a copy of the one its queries ask.
            repeats = size // key.shape[1]
            key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        query, key, value = (_Exchange.apply(states, 1, 2, self._sequence) for states in (query, key, value))
        attended = self._plan.attend(layer, query, key, value, scaling=scaling, sliding_window=sliding_window, softcap=softcap)
        return _Exchange.apply(attended, 1, 2, self._sequence)


def check_heads(num_heads: int, num_key_heads: int, size: int) -> str | None:
    """Say why heads cannot be divided among `size` processes; None where they can."""
    if num_heads % size:
        return f"its {num_heads} attention heads"
    if num_key_heads % size and size % num_key_heads:
        return f"its {num_key_heads} key heads"
    return None


class _Exchange(torch.autograd.Function):
    """Divide one dimension among the processes and get the whole of another, that was divided."""

    @staticmethod
    def forward(ctx, states: Tensor, divided: int, gathered: int, sequence: SequenceGroup) -> Tensor:
        ctx.divided, ctx.gathered, ctx.sequence = divided, gathered, sequence
        return _exchange(states, divided, gathered, sequence)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchange(grad, ctx.gathered, ctx.divided, ctx.sequence), None, None, None


def _exchange(states: Tensor, divided: int, gathered: int, sequence: SequenceGroup) -> Tensor:
    sent = torch.stack(states.chunk(sequence.size, divided)).contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=sequence.group)
    return torch.cat(received.unbind(0), gathered)


class _PutTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, places: Tensor, num_scored: int, group: Any) -> Tensor:
        ctx.save_for_backward(places)
        everyones = torch.zeros(num_scored, dtype=values.dtype, device=values.device)
        everyones[places] = values
        dist.all_reduce(everyones, group=group)
        return everyones

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (places,) = ctx.saved_tensors
        return grad[places], None, None, None
