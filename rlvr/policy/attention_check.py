"""The check at start that decides between packed and padded attention: numbers against the model's own attention, never a list of names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from rlvr.attention import IMPLEMENTATION, UnsupportedAttention, register
from rlvr.batch import MicroBatch
from rlvr.batching import build_microbatch
from rlvr.errors import ConfigError
from rlvr.logprobs import token_logprobs
from rlvr.policy.forward import output_head, packed_hidden_states, padded_hidden_states
from rlvr.policy.fused_decoder import FusedDecoder, find_fused_decoder
from rlvr.policy.packed_attention import PackedAttention
from rlvr.types import TrainSample

TOLERANCE = 1e-3  # nats, float32
logger = logging.getLogger(__name__)


def choose_attention(model: nn.Module, wanted: Literal["auto", "packed", "padded"]) -> Literal["packed", "padded"]:
    """Set the model's attention implementation and say which path its numbers allow; the model must be float32 on its device.

    Raises: ConfigError: `packed` was asked for and is wrong for this model, or its logits are no projection of its hidden states.
    """
    original = model.config._attn_implementation
    reason = None if wanted == "padded" else _why_not_packed(model)
    if wanted != "padded" and reason is None:
        return "packed"
    if wanted == "packed":
        raise ConfigError(f"model.attention=packed, but {type(model).__name__} cannot be packed: {reason}; set model.attention=padded")
    if reason is not None:
        logger.warning("%s is trained on padded rows, which is slower: %s", type(model).__name__, reason)
    _settle_padded(model, original)
    return "padded"


def _why_not_packed(model: nn.Module) -> str | None:
    """Compare packed log-probs with the model's own, sequence by sequence; None where they agree."""
    if not model._supports_attention_backend:
        return "it has no attention backends"
    config = model.config.get_text_config()
    kinds = list(getattr(config, "layer_types", None) or [])
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown:
        return f"it has layers of type {', '.join(unknown)}"
    samples = probe_samples(config.vocab_size)
    model.set_attn_implementation("eager")
    own = _own_logprobs(model, samples)
    register()
    model.set_attn_implementation(IMPLEMENTATION)
    if model.config.get_text_config()._attn_implementation != IMPLEMENTATION:
        return "it ignores the attention implementation it is given"
    microbatch = build_microbatch(samples, device=model.device)
    plan = PackedAttention(microbatch.layout, num_tokens=len(microbatch.token_ids))
    try:
        with torch.no_grad():
            hidden = packed_hidden_states(model.get_decoder(), microbatch, plan)
    except (UnsupportedAttention, TypeError) as error:
        return str(error)
    if not plan.calls:
        return "its attention never asks the registered implementation"
    calls = {layer: call for layer, call in plan.calls.items() if call.sliding_window is not None}
    without_window = [layer for layer, kind in enumerate(kinds) if kind == "sliding_attention" and layer not in calls]
    if without_window and getattr(config, "sliding_window", None):
        return f"layer {without_window[0]} has a sliding window that it does not tell its attention"
    difference = (_head_logprobs(model, hidden, microbatch) - own).abs().max().item()
    return None if difference < TOLERANCE else f"packed log-probs differ from its own by {difference:.2g} nats"


def verified_fused_decoder(model: nn.Module) -> FusedDecoder | None:
    """Return the hand-written decoder if it gives the log-probs of the model's own modules; the model must be packed and float32."""
    microbatch = build_microbatch(probe_samples(model.config.get_text_config().vocab_size), device=model.device)
    plan = PackedAttention(microbatch.layout, num_tokens=len(microbatch.token_ids))
    with torch.no_grad():
        own = _head_logprobs(model, packed_hidden_states(model.get_decoder(), microbatch, plan), microbatch)
        fused = find_fused_decoder(model.get_decoder(), plan) if plan.plain else None
        if fused is None:
            return None
        with fused.converted_weights(torch.float32):
            difference = _head_logprobs(model, fused.hidden_states(microbatch, plan), microbatch) - own
    return fused if difference.abs().max().item() < TOLERANCE else None


def with_same_logprobs(model: nn.Module, change: Callable[[nn.Module], None], setting: str) -> None:
    """Change how a model computes, and look whether it still says the same.

    Raises: ConfigError: it does not.
    """
    samples = probe_samples(model.config.get_text_config().vocab_size)
    before = _own_logprobs(model, samples)
    change(model)
    difference = (_own_logprobs(model, samples) - before).abs().max().item()
    if not difference < TOLERANCE:
        raise ConfigError(
            f"{setting}: log-probs of {type(model).__name__} differ by {difference:.2g} nats from the model's own; leave it out"
        )


def probe_samples(vocab_size: int) -> list[TrainSample]:
    """Three sequences of random tokens, two of them with a common prompt."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (64,), generator=generator).tolist()
    sequences = [(0, ids[:7] + ids[7:20], 7), (0, ids[:7] + ids[20:43], 7), (1, ids[43:58], 4)]
    return [
        TrainSample(
            token_ids=tuple(tokens),
            loss_mask=tuple(t >= prompt for t in range(len(tokens))),
            behavior_logprobs=(0.0,) * len(tokens),
            advantages=(0.0,) * len(tokens),
            policy_version=0,
            group_index=group,
        )
        for group, tokens, prompt in sequences
    ]


def _own_logprobs(model: nn.Module, samples: list[TrainSample]) -> Tensor:
    """Log-probs of the scored tokens by the model's whole forward, one sequence at a time."""
    parts = []
    with torch.no_grad():
        for sample in samples:
            ids = torch.tensor([sample.token_ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            log_p = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None]).squeeze(1)
            parts.append(log_p[torch.tensor(sample.loss_mask[1:], device=model.device)])
    return torch.cat(parts)


def _head_logprobs(model: nn.Module, hidden: Tensor, microbatch: MicroBatch) -> Tensor:
    with torch.no_grad():
        return token_logprobs(hidden[microbatch.source_index], microbatch.target_ids, output_head(model)).logprobs


def _settle_padded(model: nn.Module, original: str | None) -> None:
    """Keep the model's own attention where padded rows give the log-probs of eager attention, which knows everything the model asks for
    (PyTorch's kernel, for one, drops Gemma 2's soft cap); go to eager otherwise, and refuse a model where even that disagrees."""
    samples = probe_samples(model.config.get_text_config().vocab_size)
    microbatch = build_microbatch(samples, share_prompts=False, device=model.device)
    can_switch = model._can_set_attn_implementation()
    if can_switch:
        model.set_attn_implementation("eager")
    own = _own_logprobs(model, samples)
    for implementation in (original, "eager"):
        if can_switch:
            model.set_attn_implementation(implementation)
        with torch.no_grad():
            hidden = padded_hidden_states(model.get_decoder(), microbatch)
        difference = (_head_logprobs(model, hidden, microbatch) - own).abs().max().item()
        if difference < TOLERANCE:
            return
    raise ConfigError(
        f"{type(model).__name__} computes its log-probs in a way rlvr does not know (they differ by {difference:.2g} nats): "
        "choose another model"
    )
