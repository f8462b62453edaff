"""The attention function rlvr registers with transformers, so that packing and decoding work with any model that has attention backends.

A caller passes `attention_plan=` to the model's forward; the model hands it, layer by layer, to `attend`. Without a plan the call falls
through to PyTorch's scaled-dot-product attention, causal. A two-dimensional padding mask never arrives here: transformers builds masks only
for the implementations it knows, so whoever pads passes a plan. Importing this module does not import transformers.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

IMPLEMENTATION = "rlvr"


class AttentionPlan(Protocol):
    """Decides, for one forward pass, who attends to whom and what is remembered."""

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
    ) -> Float[Tensor, "B T H D"]: ...


class UnsupportedAttention(Exception):
    """A model's attention needs something plans do not know, such as attention sinks."""


def register() -> None:
    """Make `attn_implementation="rlvr"` known to transformers; calling it again changes nothing."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attention_forward)


def _attention_forward(
    module: nn.Module,
    query: Float[Tensor, "B H T D"],
    key: Float[Tensor, "B Hkv K D"],
    value: Float[Tensor, "B Hkv K Dv"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    attention_plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "B T H Dv"], None]:
    """Answer transformers' attention interface; dropout is never applied, because log-probs of a random network are no log-probs."""
    for name in ("s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise UnsupportedAttention(
                f"{type(module).__name__} passes {name}, which packed attention does not know: set model.attention=padded"
            )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention_plan is not None:
        attended = attention_plan.attend(
            module.layer_idx, query, key, value, scaling=scaling, sliding_window=sliding_window, softcap=softcap
        )
        return attended, None
    query_length, key_length = query.shape[2], key.shape[2]
    if attention_mask is None and sliding_window is None and query_length == key_length:
        visible = None
    elif attention_mask is None:
        visible = visible_keys(
            torch.arange(key_length - query_length, key_length, device=query.device),
            torch.arange(key_length, device=query.device),
            sliding_window,
        )
    else:
        visible = attention_mask[..., :key_length]
    return masked_attention(query, key, value, visible, scaling=scaling, softcap=softcap).transpose(1, 2).contiguous(), None


def visible_keys(query_positions: Tensor, key_positions: Tensor, sliding_window: int | None) -> Bool[Tensor, "... Q K"]:
    """Tell which keys a query may look at: none after itself, and with a window W only the last W, itself included."""
    distance = query_positions.unsqueeze(-1) - key_positions.unsqueeze(-2)
    visible = distance >= 0
    return visible if sliding_window is None else visible & (distance < sliding_window)


def masked_attention(
    query: Float[Tensor, "B H Q D"],
    key: Float[Tensor, "B Hkv K D"],
    value: Float[Tensor, "B Hkv K Dv"],
    visible: Tensor | None,
    *,
    scaling: float,
    softcap: float | None,
) -> Float[Tensor, "B H Q Dv"]:
    """Attend with PyTorch's kernel; `visible` None is causal, a bool mask is True where a key is seen, a float mask is added."""
    if softcap is None:
        if visible is None:
            return F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
            )
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling)
    # Soft-capping (Gemma 2, arXiv:2408.00118) bends the scores before the softmax, which the fused kernel cannot do.
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * scaling / softcap)
    if visible is None:
        positions = torch.arange(query.shape[2], device=query.device)
        visible = visible_keys(positions, positions, None)
    scores = scores.float().masked_fill(~visible, float("-inf")) if visible.dtype == torch.bool else scores.float() + visible
    return torch.softmax(scores, -1).to(value.dtype) @ value
