"""A compact decoder for modules shaped like Llama, Qwen2, Qwen3 and Mistral: the same numbers from far fewer and larger operations.

It holds its own copies of the weights: query, key and value as one matrix, packed for the processor's matrix kernels. Whether a module
has this shape is never assumed from its name: the decoder's log-probs are compared with the module's own before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from rlvr.attention import AttentionPlan
from rlvr.engines.kv_cache import PrefillPlan

LOG = logging.getLogger(__name__)
STATIC_ROPES = {"default", "linear", "llama3", "yarn"}
"""Rotary embeddings whose angles depend on the position alone, not on the length of the sequence."""
FLOAT32_TOLERANCE = 1e-4
"""Largest accepted difference in log-probs (nats) from the module's own forward, both in float32."""
COARSE_TOLERANCE = 0.1
"""The same where the module's weights are stored in 16 bits and its own forward rounds."""


class UnknownShape(Exception):
    """The module is not built the way this decoder computes."""


class Linear:
    """x W^T + b with what follows it: packed for oneDNN where the processor has kernels for the dtype, plain elsewhere."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> None:
        self._packed = _can_be_packed(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()) if self._packed else weight
        self._bias = bias

    def __call__(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return F.linear(x, self._weight, self._bias)

    def silu(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "swish", [], "")
        return F.silu(F.linear(x, self._weight, self._bias))

    def times(self, x: Float[Tensor, "N I"], other: Float[Tensor, "N O"]) -> Float[Tensor, "N O"]:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, "mul")
        return F.linear(x, self._weight, self._bias).mul_(other)


def _can_be_packed(weight: Tensor) -> bool:
    """16 bits need instructions that not every processor has: AVX-512, for example."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights, ready to multiply with; the norms' weights are multiplied into what follows them."""

    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Linear
    gate: Linear
    up: Linear
    down: Linear


class FusedNetwork:
    """A network over copies of the module's weights. The residual stream, norms and rotations are float32, matrix products `dtype`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Raises: UnknownShape: the module tree lacks what this decoder needs or has what it does not know."""
        self._model, self._dtype = model, dtype
        self._body, self._lm_head = check_shape(model)
        attention = self._body.layers[0].self_attn
        self._head_dim, self._scaling = attention.head_dim, attention.scaling
        self._num_heads = attention.q_proj.weight.shape[0] // self._head_dim
        self._num_kv_heads = attention.k_proj.weight.shape[0] // self._head_dim
        self._eps = torch.tensor(self._body.norm.variance_epsilon, device=self._body.norm.weight.device)
        self._rotations = self._rotations_up_to(512)

    def refresh(self) -> None:
        self._use(list(self._build_layers(self._dtype)), self._dtype)

    def verify(self) -> float:
        """Return the largest difference in log-probs from the module's own forward, in float32, one layer's copy at a time."""
        weight = self._body.embed_tokens.weight
        tokens = (torch.arange(24, device=weight.device) * 7919 % weight.shape[0]).view(2, 12)
        own = torch.log_softmax(self._model(input_ids=tokens, use_cache=False).logits.float(), -1)
        self._use(self._build_layers(torch.float32), torch.float32)
        positions = torch.arange(12, device=weight.device).expand(2, 12)
        mine = self(tokens, positions, PrefillPlan(torch.zeros_like(tokens[:, 0])), last_only=False)
        return float((torch.log_softmax(mine, -1) - own).abs().max())

    def __call__(
        self, token_ids: Int[Tensor, "B T"], position_ids: Int[Tensor, "B T"], plan: AttentionPlan, *, last_only: bool
    ) -> Float[Tensor, "B S V"]:
        rows, steps = token_ids.shape
        residual = F.embedding(token_ids.reshape(-1), self._body.embed_tokens.weight).float()
        longest = int(position_ids.max()) + 1
        if longest > len(self._rotations):
            self._rotations = self._rotations_up_to(2 * longest)
        rotation = self._rotations[position_ids.reshape(-1)]
        for index, layer in enumerate(self._layers):
            query, key, value = self._project(layer, self._normalise(residual), rotation, rows, steps)
            attended = plan.attend(index, query, key, value, scaling=1.0, sliding_window=None, softcap=None)
            residual += layer.out(attended.reshape(rows * steps, -1))
            x = self._normalise(residual)
            residual += layer.down(layer.up.times(x, layer.gate.silu(x)))
        if last_only:
            residual = residual.view(rows, steps, -1)[:, -1]
        return self._head(self._normalise(residual)).float().view(rows, -1, self._lm_head.weight.shape[0])

    def _normalise(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N I"]:
        """Divide by the root mean square, without weights, in float32; return the type of matrix products."""
        # Half the time of F.rms_norm, which the CPU runs as a chain of small operations.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()
        return torch.mul(x, inverse, out=torch.empty_like(x, dtype=self._active_dtype))

    def _project(
        self, layer: Layer, x: Float[Tensor, "N I"], rotation: Complex[Tensor, "N 1 D2"], rows: int, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries and keys, and values, each [B, heads, T, D]."""
        heads, rotated, dim = self._num_heads, self._num_heads + self._num_kv_heads, self._head_dim
        qkv = layer.qkv(x).float().view(len(x), -1, dim)
        if layer.query_norm is not None:
            eps = self._body.norm.variance_epsilon
            qkv[:, :heads] = F.rms_norm(qkv[:, :heads], (dim,), layer.query_norm, eps)
            qkv[:, heads:rotated] = F.rms_norm(qkv[:, heads:rotated], (dim,), layer.key_norm, eps)
        # The weights' rows are ordered so that each rotated pair is adjacent: one complex product turns queries and keys at once.
        torch.view_as_complex(qkv[:, :rotated].unflatten(-1, (-1, 2))).mul_(rotation)
        qkv = qkv.to(x.dtype).view(rows, steps, -1, dim).transpose(1, 2)
        return qkv[:, :heads], qkv[:, heads:rotated], qkv[:, rotated:]

    def _rotations_up_to(self, length: int) -> Complex[Tensor, "P 1 D2"]:
        weight = self._body.embed_tokens.weight
        positions = torch.arange(length, device=weight.device)[None]
        cos, sin = self._body.rotary_emb(torch.zeros(1, 1, 1, device=weight.device), positions)
        if cos.shape[-1] != self._head_dim:
            raise UnknownShape(f"{cos.shape[-1]} of {self._head_dim} head dimensions are rotated")
        half = self._head_dim // 2
        return torch.complex(cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous())

    def _use(self, layers: Iterable[Layer], dtype: torch.dtype) -> None:
        self._layers, self._active_dtype = layers, dtype
        self._head = _linear([self._lm_head], dtype, columns=self._body.norm.weight)

    def _build_layers(self, dtype: torch.dtype) -> Iterator[Layer]:
        dim = self._head_dim
        pairs = torch.arange(dim).view(2, -1).t().reshape(-1).to(self._body.embed_tokens.weight.device)

        def paired(values: Tensor) -> Tensor:
            """Reorder each head's entries (i, i + D/2) next to each other."""
            return values.unflatten(0, (-1, dim))[:, pairs].flatten(0, 1)

        for module in self._body.layers:
            attention, mlp = module.self_attn, module.mlp
            before, between = module.input_layernorm.weight, module.post_attention_layernorm.weight
            normed = "q_norm" in dict(attention.named_children())
            # The scaling of scores rides on the queries: on their norm's weight where they have one, else on their projection.
            scale = 1.0 if normed else self._scaling
            yield Layer(
                qkv=_linear(
                    [attention.q_proj, attention.k_proj, attention.v_proj],
                    dtype,
                    columns=before,
                    rows=[lambda values, scale=scale: paired(values) * scale, paired, None],
                ),
                query_norm=paired(attention.q_norm.weight.detach().float()) * self._scaling if normed else None,
                key_norm=paired(attention.k_norm.weight.detach().float()) if normed else None,
                out=_linear([attention.o_proj], dtype),
                gate=_linear([mlp.gate_proj], dtype, columns=between),
                up=_linear([mlp.up_proj], dtype, columns=between),
                down=_linear([mlp.down_proj], dtype),
            )


def fused_network(model: nn.Module, dtype: torch.dtype) -> FusedNetwork | None:
    """Return the compact decoder when the module is shaped for it and agrees with it, else None."""
    try:
        network = FusedNetwork(model, dtype)
    except UnknownShape as reason:
        LOG.warning("decoding with the module's own forward, which is slower: %s", reason)
        return None
    tolerance = FLOAT32_TOLERANCE if all(p.dtype == torch.float32 for p in model.parameters()) else COARSE_TOLERANCE
    difference = network.verify()
    if not difference <= tolerance:
        LOG.warning(
            "decoding with the module's own forward, which is slower: the compact decoder's log-probs differ by %.3g nats", difference
        )
        return None
    network.refresh()
    return network


def check_shape(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the decoder and the output projection. Raises: UnknownShape."""
    body, head = model.get_decoder(), model.get_output_embeddings()
    _expect("the decoder", body, {"embed_tokens", "layers", "norm", "rotary_emb"})
    if body.rotary_emb.rope_type not in STATIC_ROPES:
        raise UnknownShape(f"its rotary embedding {body.rotary_emb.rope_type!r} depends on the length")
    if body.config.to_dict().get("sliding_window") is not None:
        raise UnknownShape("it attends through a sliding window")
    for layer in body.layers:
        _expect("a layer", layer, {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})
        _expect("attention", layer.self_attn, {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_norm", "k_norm"})
        _expect("the feed-forward part", layer.mlp, {"gate_proj", "up_proj", "down_proj", "act_fn"})
        if type(layer.mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation"):
            raise UnknownShape(f"its activation is {type(layer.mlp.act_fn).__name__}")
        if "variance_epsilon" not in vars(layer.input_layernorm):
            raise UnknownShape(f"its norm is {type(layer.input_layernorm).__name__}")
    return body, head


def _expect(what: str, module: nn.Module, required: set[str], optional: set[str] = frozenset()) -> None:
    names = {name for name, _ in module.named_children()}
    if not required <= names <= required | optional:
        raise UnknownShape(f"{what} has the parts {', '.join(sorted(names))}")


def _linear(
    modules: Sequence[nn.Module],
    dtype: torch.dtype,
    *,
    columns: Tensor | None = None,
    rows: Sequence[Callable[[Tensor], Tensor] | None] = (None,),
) -> Linear:
    """Stack the modules' outputs into one product; `rows` changes each module's output features, `columns` scales all input features."""
    weights, biases = [], []
    for module, change in zip(modules, rows, strict=True):
        weight, bias = dense(module)
        weight = weight.float() if columns is None else weight.float() * columns.detach().float()
        bias = weight.new_zeros(len(weight)) if bias is None else bias.float()
        weights.append(change(weight) if change else weight)
        biases.append(change(bias) if change else bias)
    bias = torch.cat(biases)
    return Linear(torch.cat(weights).to(dtype), bias.to(dtype) if bool(bias.any()) else None)


def dense(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return the weight and bias a projection applies, low-rank adapters merged. Raises: UnknownShape."""
    if type(module) is nn.Linear:
        return module.weight.detach(), None if module.bias is None else module.bias.detach()
    if "lora_A" not in dict(module.named_children()):
        raise UnknownShape(f"a projection is {type(module).__name__}")
    weight = module.weight.detach()
    if not module.merged and not module.disable_adapters:
        weight = weight + sum(module.get_delta_weight(name).detach() for name in module.active_adapters)
    return weight, None if module.bias is None else module.bias.detach()
