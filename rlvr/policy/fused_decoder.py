"""A hand-written forward and backward of the common decoder, for CPU training: RMSNorm, rotary grouped-query attention, gated SiLU.

It computes what the model's own modules compute with fewer passes over memory: the norm's weight is folded into the projections behind it,
nothing bounces between float32 and the compute type, and converted weights live as long as an update. It is used only for a model whose
modules have exactly this structure and whose log-probs it reproduces (`find_fused_decoder`); every other model runs its own modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rlvr.batch import MicroBatch
from rlvr.policy.packed_attention import PackedAttention, plain_attention_backward, plain_attention_forward

DECODER_PARTS = {"embed_tokens", "layers", "norm", "rotary_emb"}
LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(slots=True)
class _Weight:
    """A weight as the products use it: `value` in the compute type, `source` the float32 expression of parameters it was made from."""

    source: Tensor
    value: Tensor
    gradient: Tensor | None = None

    def add_gradient(self, gradient: Tensor) -> None:
        """Sum over micro-batches in float32."""
        self.gradient = gradient.float() if self.gradient is None else self.gradient.add_(gradient)


@dataclass(frozen=True, slots=True)
class _LayerWeights:
    """One layer's weights; projections behind a norm carry its weight. `rotated` is query and key projection, rotary pairs adjacent."""

    rotated: _Weight
    rotated_bias: _Weight | None
    value: _Weight
    value_bias: _Weight | None
    output: _Weight
    gate: _Weight
    up: _Weight
    down: _Weight


@dataclass(frozen=True, slots=True)
class _LayerShape:
    num_heads: int
    num_key_heads: int
    head_dim: int
    scaling: float
    sliding_window: int | None
    attention_eps: float
    mlp_eps: float


@dataclass(slots=True)
class FusedDecoder:
    """Runs a verified decoder; `weights_for_update` prepares the weights once for several micro-batches."""

    decoder: nn.Module
    shapes: list[_LayerShape]
    _prepared: list[_LayerWeights] | None = field(default=None, repr=False)

    @contextmanager
    def converted_weights(self, dtype: torch.dtype) -> Iterator[None]:
        """Hold weights in `dtype` for all forward passes inside; on leaving, hand the summed gradients to the parameters."""
        self._prepared = self._prepare(dtype)
        try:
            yield
            self._hand_over()
        finally:
            self._prepared = None

    def hidden_states(self, microbatch: MicroBatch, plan: PackedAttention) -> Float[Tensor, "Tfilled H"]:
        """Return the normed hidden states of the packed tokens and of the plan's filling, which nothing sees and which has no gradient.

        Call inside `converted_weights`, with a plan that is `plain`.
        """
        decoder = self.decoder
        with torch.autocast("cpu", enabled=False):
            filling = (0, plan.padded_length - len(microbatch.token_ids))
            hidden = decoder.embed_tokens(F.pad(microbatch.token_ids, filling))
            cos, sin = decoder.rotary_emb(hidden.unsqueeze(0), F.pad(microbatch.position_ids, filling).unsqueeze(0))
            half = cos.shape[-1] // 2
            turn = torch.complex(cos[0, :, None, :half].float().contiguous(), sin[0, :, None, :half].float().contiguous())
            for layer, (weights, shape) in enumerate(zip(self._prepared, self.shapes, strict=True)):
                hidden = _AttentionBlock.apply(hidden, weights, shape, plan, turn, layer)
                hidden = _MlpBlock.apply(hidden, weights, shape.mlp_eps)
            return _FinalNorm.apply(hidden, decoder.norm.weight, decoder.norm.variance_epsilon, self._prepared[0].output.value.dtype)

    def _prepare(self, dtype: torch.dtype) -> list[_LayerWeights]:
        prepared = []
        for layer, shape in zip(self.decoder.layers, self.shapes, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            before_attention, before_mlp = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
            rotated = torch.cat([_pairs_adjacent(p.weight, shape.head_dim) for p in (attention.q_proj, attention.k_proj)])
            biases = [p.bias for p in (attention.q_proj, attention.k_proj)]
            rotated_bias = None if biases[0] is None else torch.cat([_pairs_adjacent(b, shape.head_dim) for b in biases])
            prepared.append(
                _LayerWeights(
                    rotated=_weight(rotated * before_attention, dtype),
                    rotated_bias=None if rotated_bias is None else _weight(rotated_bias, dtype),
                    value=_weight(attention.v_proj.weight * before_attention, dtype),
                    value_bias=None if attention.v_proj.bias is None else _weight(attention.v_proj.bias, dtype),
                    output=_weight(attention.o_proj.weight, dtype),
                    gate=_weight(mlp.gate_proj.weight * before_mlp, dtype),
                    up=_weight(mlp.up_proj.weight * before_mlp, dtype),
                    down=_weight(mlp.down_proj.weight, dtype),
                )
            )
        return prepared

    def _hand_over(self) -> None:
        used = [w for layer in self._prepared for w in _weights_of(layer) if w.gradient is not None and w.source.requires_grad]
        if used:
            torch.autograd.backward([w.source for w in used], [w.gradient for w in used])


def _weight(source: Tensor, dtype: torch.dtype) -> _Weight:
    return _Weight(source, source.detach().to(dtype))


def _weights_of(layer: _LayerWeights) -> list[_Weight]:
    every = (layer.rotated, layer.rotated_bias, layer.value, layer.value_bias, layer.output, layer.gate, layer.up, layer.down)
    return [weight for weight in every if weight is not None]


def _pairs_adjacent(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder each head's outputs 0 … D-1 to 0, D/2, 1, D/2 + 1, …: rotary pairs side by side, so that rotation is a complex product.

    Scores do not change when queries and keys are reordered alike.
    """
    return rows.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(rows.shape)


def find_fused_decoder(decoder: nn.Module, plan: PackedAttention) -> FusedDecoder | None:
    """Recognise the structure by its modules, or return None; `plan` has recorded how a forward pass called attention.

    A match is a candidate: the caller compares its log-probs with the model's own before using it.
    """
    if _part_names(decoder) != DECODER_PARTS or type(decoder.embed_tokens) is not nn.Embedding or not _is_rms_norm(decoder.norm):
        return None
    shapes = []
    for index, layer in enumerate(decoder.layers):
        call = plan.calls.get(index)
        if call is None or call.softcap is not None or not _layer_matches(layer):
            return None
        head_dim = getattr(layer.self_attn, "head_dim", None)
        if not isinstance(head_dim, int) or head_dim % 2:
            return None
        projections = layer.self_attn
        shapes.append(
            _LayerShape(
                num_heads=projections.q_proj.out_features // head_dim,
                num_key_heads=projections.k_proj.out_features // head_dim,
                head_dim=head_dim,
                scaling=call.scaling,
                sliding_window=call.sliding_window,
                attention_eps=layer.input_layernorm.variance_epsilon,
                mlp_eps=layer.post_attention_layernorm.variance_epsilon,
            )
        )
    return FusedDecoder(decoder, shapes)


def _layer_matches(layer: nn.Module) -> bool:
    if _part_names(layer) != LAYER_PARTS or _part_names(layer.self_attn) != ATTENTION_PARTS or _part_names(layer.mlp) != MLP_PARTS:
        return False
    attention, mlp = layer.self_attn, layer.mlp
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    unbiased = [attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return (
        all(type(linear) is nn.Linear for linear in linears)
        and all(linear.bias is None for linear in unbiased)
        and (attention.q_proj.bias is None) == (attention.k_proj.bias is None)
        and _is_rms_norm(layer.input_layernorm)
        and _is_rms_norm(layer.post_attention_layernorm)
        and "silu" in type(mlp.act_fn).__name__.lower()
    )


def _part_names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()} | {name for name, _ in module.named_parameters(recurse=False)}


def _is_rms_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and _part_names(module) == {"weight"} and hasattr(module, "variance_epsilon")


def _normed(hidden: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return hidden / rms(hidden) in the compute type and 1 / rms(hidden), [T, 1]."""
    inverse_rms = torch.linalg.vecdot(hidden, hidden).div_(hidden.shape[1]).add_(eps).rsqrt_().unsqueeze(1)
    return (hidden * inverse_rms).to(dtype), inverse_rms


def _normed_backward(grad: Tensor, grad_residual: Tensor, hidden: Tensor, inverse_rms: Tensor) -> Tensor:
    """With n = h r, r = 1 / rms(h):  dh = residual's + r dn - h r^3 mean(dn h)."""
    grad = grad.float()
    mean = torch.linalg.vecdot(grad, hidden).div_(hidden.shape[1]).unsqueeze(1)
    return torch.addcmul(grad_residual, grad, inverse_rms).addcmul_(hidden, mean.mul_(inverse_rms**3), value=-1)


def _project(states: Tensor, weight: _Weight, bias: _Weight | None) -> Tensor:
    return states @ weight.value.t() if bias is None else torch.addmm(bias.value, states, weight.value.t())


def _project_backward(grad: Tensor, states: Tensor, weight: _Weight, bias: _Weight | None = None) -> None:
    weight.add_gradient(grad.t() @ states)
    if bias is not None:
        bias.add_gradient(grad.sum(0, dtype=torch.float32))


def _rotate(states: Float[Tensor, "T W D"], turn: Tensor, dtype: torch.dtype) -> Float[Tensor, "T W D"]:
    """Turn adjacent pairs by the position's angle, in float32."""
    pairs = torch.view_as_complex(states.to(torch.float32, copy=True).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs.mul_(turn)).flatten(-2).to(dtype)


class _FinalNorm(torch.autograd.Function):
    """norm(hidden) * weight, in the compute type."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        normed, inverse_rms = _normed(hidden, eps, torch.float32)
        ctx.save_for_backward(hidden, weight, inverse_rms, normed)
        return (normed * weight).to(dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, inverse_rms, normed = ctx.saved_tensors
        grad = grad.float()
        return _normed_backward(grad * weight, torch.zeros_like(hidden), hidden, inverse_rms), (grad * normed).sum(0), None, None


class _AttentionBlock(torch.autograd.Function):
    """hidden + output_projection(attention(rotary(projections(norm(hidden)))))"""

    @staticmethod
    def forward(ctx, hidden: Tensor, weights: _LayerWeights, shape: _LayerShape, plan: PackedAttention, turn: Tensor, layer: int) -> Tensor:
        num_tokens, dtype = hidden.shape[0], weights.output.value.dtype
        normed, inverse_rms = _normed(hidden, shape.attention_eps, dtype)
        rotated = _project(normed, weights.rotated, weights.rotated_bias).view(num_tokens, -1, shape.head_dim)
        rotated = _rotate(rotated, turn, dtype)
        value = _project(normed, weights.value, weights.value_bias).view(num_tokens, -1, shape.head_dim)
        query, key = rotated[:, : shape.num_heads], rotated[:, shape.num_heads :]
        attended, saved = plain_attention_forward(plan, query, key, value, shape.scaling, shape.sliding_window)
        attended = attended.view(num_tokens, -1)
        ctx.save_for_backward(hidden, inverse_rms, normed, attended, turn, *saved)
        ctx.weights, ctx.shape, ctx.plan = weights, shape, plan
        return hidden + (attended @ weights.output.value.t()).float()

    @staticmethod
    def backward(ctx, grad_hidden: Tensor) -> tuple[Tensor | None, ...]:
        hidden, inverse_rms, normed, attended, turn, *saved = ctx.saved_tensors
        weights, shape = ctx.weights, ctx.shape
        num_tokens, dtype = hidden.shape[0], normed.dtype
        grad = grad_hidden.to(dtype)
        _project_backward(grad, attended, weights.output)
        grad_attended = (grad @ weights.output.value).view(num_tokens, shape.num_heads, shape.head_dim)
        grad_query, grad_key, grad_value = plain_attention_backward(
            ctx.plan, saved, grad_attended, shape.num_heads, shape.num_key_heads, shape.scaling, shape.sliding_window
        )
        grad_rotated = _rotate(torch.cat([grad_query, grad_key], 1), turn.conj(), dtype).view(num_tokens, -1)
        grad_value = grad_value.view(num_tokens, -1)
        _project_backward(grad_rotated, normed, weights.rotated, weights.rotated_bias)
        _project_backward(grad_value, normed, weights.value, weights.value_bias)
        grad_normed = (grad_rotated @ weights.rotated.value).addmm_(grad_value, weights.value.value)
        return _normed_backward(grad_normed, grad_hidden, hidden, inverse_rms), None, None, None, None, None


class _MlpBlock(torch.autograd.Function):
    """hidden + down(silu(gate(norm(hidden))) * up(norm(hidden)))"""

    @staticmethod
    def forward(ctx, hidden: Tensor, weights: _LayerWeights, eps: float) -> Tensor:
        normed, inverse_rms = _normed(hidden, eps, weights.down.value.dtype)
        gate, up = normed @ weights.gate.value.t(), normed @ weights.up.value.t()
        activated = F.silu(gate)
        product = activated * up
        ctx.save_for_backward(hidden, inverse_rms, normed, gate, up, activated, product)
        ctx.weights = weights
        return hidden + (product @ weights.down.value.t()).float()

    @staticmethod
    def backward(ctx, grad_hidden: Tensor) -> tuple[Tensor, None, None]:
        hidden, inverse_rms, normed, gate, up, activated, product = ctx.saved_tensors
        weights = ctx.weights
        grad = grad_hidden.to(normed.dtype)
        _project_backward(grad, product, weights.down)
        grad_product = grad @ weights.down.value
        grad_up = grad_product * activated
        grad_gate = torch.ops.aten.silu_backward(grad_product.mul_(up), gate)
        _project_backward(grad_gate, normed, weights.gate)
        _project_backward(grad_up, normed, weights.up)
        grad_normed = (grad_gate @ weights.gate.value).addmm_(grad_up, weights.up.value)
        return _normed_backward(grad_normed, grad_hidden, hidden, inverse_rms), None, None
