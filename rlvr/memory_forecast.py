"""Predicts the peak memory of a run by part, from shapes alone; loads no weights.

Every formula is an upper estimate of what lives at the same time: an update and a batch of decoding alternate on one device, so the peak is
what always lives plus the larger of the two. Memory that grows with the data is counted at its limit: prompts of `max_prompt_tokens` and
completions of `max_new_tokens`, all rows at once. docs/memory.md compares forecasts with measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FLOAT32 = 4
CHUNK_COPIES = 3  # A chunk's logits in float32, their softmax or gradient, and its copy in the compute type.
ADAM_MOMENTS = 2
DECODE_COPIES = 3  # Logits of the decoded rows in the compute type, in float32, and their log-softmax.


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes a forecast needs. `num_matrix_parameters` are those autocast keeps a copy of in the compute type."""

    num_parameters: int
    num_matrix_parameters: int
    num_layers: int
    hidden: int
    intermediate: int
    num_heads: int
    num_key_heads: int
    head_dim: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Workload:
    """What is computed: types in bytes per number, tokens at once, rows at once."""

    weight_bytes: int
    compute_bytes: int
    num_trainable: int
    tokens_per_microbatch: int
    max_sequence_tokens: int
    chunk_elements: int
    keeps_reference: bool
    gradient_checkpointing: bool
    max_plain_keys: int
    """Keys a query may have for its attention weights to be kept, as matrix-product attention does; 0 where a fused kernel keeps none."""
    decode_rows: int
    """Rows decoded at once in the policy's own module; 0 where nothing is sampled there."""
    vllm_bytes: int = 0
    """What vLLM takes in this process beside its weights: its key-value cache."""
    holds_vllm: bool = False
    """Whether vLLM lives in this process, with weights of its own."""


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One part in bytes: `always` there, or only during an `update` or while `decoding`."""

    name: str
    phase: Literal["always", "update", "decoding"]
    num_bytes: int
    formula: str


@dataclass(frozen=True, slots=True)
class MemoryForecast:
    """The parts and their peak."""

    parts: tuple[MemoryPart, ...]

    @property
    def peak(self) -> int:
        """What always lives plus the larger of update and decoding."""
        return self.total("always") + max(self.total("update"), self.total("decoding"))

    def total(self, phase: Literal["always", "update", "decoding"]) -> int:
        return sum(part.num_bytes for part in self.parts if part.phase == phase)


def forecast(shape: ModelShape, work: Workload) -> MemoryForecast:
    """Predict the peak memory of training a model of this shape under this workload."""
    head = shape.vocabulary * shape.hidden
    cast = shape.num_matrix_parameters * work.compute_bytes if work.compute_bytes < work.weight_bytes else 0
    chunk = min(work.chunk_elements, work.tokens_per_microbatch * shape.vocabulary)
    parts = [
        MemoryPart("weights", "always", shape.num_parameters * work.weight_bytes, "parameters x weight bytes"),
        MemoryPart("optimizer", "always", ADAM_MOMENTS * work.num_trainable * work.weight_bytes, "2 moments x trained parameters"),
    ]
    if work.keeps_reference:
        parts.append(MemoryPart("frozen reference", "always", shape.num_parameters * work.weight_bytes, "parameters x weight bytes"))
    if work.holds_vllm:
        parts += [
            MemoryPart("vLLM's weights", "always", shape.num_parameters * work.compute_bytes, "parameters x compute bytes"),
            MemoryPart("vLLM's key-value cache", "always", work.vllm_bytes, "engine.vllm.kv_cache_gib; on a GPU what is left of its share"),
        ]
    parts += [
        MemoryPart("gradients", "update", work.num_trainable * work.weight_bytes, "trained parameters x weight bytes"),
        MemoryPart("weights in the compute type", "update", cast, "matrix parameters x compute bytes"),
        MemoryPart("activations", "update", activation_bytes(shape, work), "see docs/memory.md"),
        MemoryPart(
            "log-prob chunk",
            "update",
            CHUNK_COPIES * chunk * FLOAT32 + head * (work.compute_bytes + FLOAT32),
            "3 x chunk of logits, head in the compute type and its gradient",
        ),
    ]
    if work.decode_rows:
        parts += [
            MemoryPart("weights while decoding", "decoding", cast, "matrix parameters x compute bytes"),
            MemoryPart("key-value cache", "decoding", cache_bytes(shape, work), "2 x layers x key heads x head size x rows x tokens"),
            MemoryPart(
                "decoding logits", "decoding", DECODE_COPIES * work.decode_rows * shape.vocabulary * FLOAT32, "3 x rows x vocabulary"
            ),
        ]
    return MemoryForecast(tuple(part for part in parts if part.num_bytes))


def activation_bytes(shape: ModelShape, work: Workload) -> int:
    """Return what a micro-batch keeps for its backward.

    A pre-norm layer keeps, per token: both norms' inputs and normalised values (float32); the inputs of the query, key, value and output
    projections; queries, keys and values before and after rotation and in attention's own order; and four intermediate values of the gated
    MLP with its two inputs. Matrix-product attention keeps its weights, one per head, query and key. With gradient checkpointing every
    layer keeps its input only, and one layer at a time is whole, with as much again for the gradients of its values.
    """
    tokens, compute = work.tokens_per_microbatch, work.compute_bytes
    queries, keys = shape.num_heads * shape.head_dim, shape.num_key_heads * shape.head_dim
    # Under autocast each projection casts its input anew; in float32 they share it with the norm.
    casts = 5 * shape.hidden * compute if compute < FLOAT32 else 0
    norms = 2 * 2 * shape.hidden * FLOAT32
    attention = (3 * (queries + 2 * keys) + 2 * queries) * compute
    mlp = 4 * shape.intermediate * compute
    scores = shape.num_heads * min(work.max_sequence_tokens, work.max_plain_keys, tokens) * compute
    layer = tokens * (norms + casts + attention + mlp + scores)
    final = tokens * shape.hidden * (2 * FLOAT32 + 2 * compute)
    if work.gradient_checkpointing:
        return shape.num_layers * tokens * shape.hidden * FLOAT32 + 2 * layer + final
    return shape.num_layers * layer + final


def cache_bytes(shape: ModelShape, work: Workload) -> int:
    """Return the key-value cache with every row at its longest."""
    per_token = 2 * shape.num_layers * shape.num_key_heads * shape.head_dim * work.compute_bytes
    return per_token * work.decode_rows * work.max_sequence_tokens


def model_shape(config: Any, num_parameters: int, num_matrix_parameters: int) -> ModelShape:
    """Read the sizes from a transformers configuration; of mixtures of experts, the experts a token passes through."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    intermediate = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    experts = getattr(text, "num_experts_per_tok", None)
    if experts:
        intermediate = experts * (getattr(text, "moe_intermediate_size", None) or intermediate)
    return ModelShape(
        num_parameters=num_parameters,
        num_matrix_parameters=num_matrix_parameters,
        num_layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=intermediate,
        num_heads=heads,
        num_key_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=text.vocab_size,
    )


def format_bytes(num_bytes: float) -> str:
    """Write a size in binary units: 512 KiB, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 100 or unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"
