"""Predicts the peak memory of a run by part, from shapes alone; loads no weights.

Every formula is an upper estimate of what lives at the same time: an update and a batch of decoding alternate on one device, so the peak is
what always lives plus the larger of the two. Memory that grows with the data is counted at its limit: prompts of `max_prompt_tokens` and
completions of `max_new_tokens`, all rows at once. docs/memory.md compares forecasts with measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

FLOAT32 = 4
CHUNK_COPIES = 3  # A chunk's logits in float32, their softmax or gradient, and its copy in the compute type.
ADAM_MOMENTS = 2
FUSED_COPIES = 0.8  # Query, key, value, gate and up projections with the norms' weights multiplied in, queries' and keys' once more.
PACKED_BYTES = 0.5 + 4 / 64  # Four bits and a float32 scale for each 64 numbers.
MAX_GATHERED = 10**9  # DeepSpeed's stage3_max_live_parameters.
BUCKET_ELEMENTS = 1 << 26  # rlvr.policy.deepspeed_policy.BUCKET_ELEMENTS.
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
class Division:
    """ZeRO stage and number of processes that divide the state; `offloads_optimizer` keeps the optimizer's in the host's memory."""

    stage: int
    num_ranks: int
    offloads_optimizer: bool = False
    offloads_parameters: bool = False
    sequence_parallel_size: int = 1


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
    max_plain_area: int
    """Queries times keys a row may have for its attention weights to be kept, as matrix-product attention does; 0 where none are."""
    decode_rows: int
    """Rows decoded at once in the policy's own module; 0 where nothing is sampled there."""
    vllm_bytes: int = 0
    """What vLLM takes in this process beside its weights: its key-value cache."""
    holds_vllm: bool = False
    """Whether vLLM lives in this process, with weights of its own."""
    fused_decoder: bool = False
    """Whether the decoder runs hand-written, as it does in training on a CPU; it keeps less."""
    quantized: bool = False
    """Whether the matrices, frozen, are in 4 bits."""
    eight_bit_moments: bool = False
    learns_rewards: bool = False
    """Whether an implicit reward model is learned beside the policy."""
    offloads_activations: bool = False
    """Whether what a backward needs is kept in the host's memory, on a GPU."""
    division: Division | None = None
    """How DeepSpeed divides the state; None on one process without it."""


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
    """Predict one process's peak memory of training a model of this shape under this workload."""
    parts = [*_state_parts(shape, work), *_update_parts(shape, work)]
    if work.learns_rewards:
        # It learns between the policy's updates, not at the same time. With adapters its frozen start is the base.
        second = _state_parts(shape, replace(work, keeps_reference=work.num_trainable == shape.num_parameters))
        num_bytes = sum(part.num_bytes for part in second)
        parts.append(MemoryPart("implicit reward model", "always", num_bytes, "weights, frozen reference and optimizer once more"))
    if work.holds_vllm:
        parts += [
            MemoryPart("vLLM's weights", "always", shape.num_parameters * work.compute_bytes, "parameters x compute bytes"),
            MemoryPart("vLLM's key-value cache", "always", work.vllm_bytes, "engine.vllm.kv_cache_gib; on a GPU what is left of its share"),
        ]
    if work.decode_rows:
        parts += [
            MemoryPart("weights while decoding", "decoding", _converted_bytes(shape, work), "matrix parameters x compute bytes"),
            MemoryPart("key-value cache", "decoding", cache_bytes(shape, work), "2 x layers x key heads x head size x rows x tokens"),
            MemoryPart(
                "decoding logits", "decoding", DECODE_COPIES * work.decode_rows * shape.vocabulary * FLOAT32, "3 x rows x vocabulary"
            ),
        ]
        if work.quantized or (work.division is not None and work.division.stage == 3):
            whole = shape.num_parameters * work.weight_bytes
            parts.append(MemoryPart("whole copy to sample from", "always", whole, "parameters x weight bytes"))
    return MemoryForecast(tuple(part for part in parts if part.num_bytes))


def _state_parts(shape: ModelShape, work: Workload) -> list[MemoryPart]:
    """What lives as long as the run: weights, the optimizer's state, the reference."""
    division = work.division or Division(0, 1)
    ranks = division.num_ranks
    weights_shared = ranks if division.stage == 3 else 1
    weight_bytes = shape.num_parameters * work.weight_bytes // weights_shared
    if work.quantized:
        packed = round(PACKED_BYTES * shape.num_matrix_parameters)
        weight_bytes = (shape.num_parameters - shape.num_matrix_parameters) * work.weight_bytes + packed
    by = f" / {ranks} ranks"
    where = "" if weights_shared == 1 else by
    parts = [MemoryPart("weights", "always", 0 if division.offloads_parameters else weight_bytes, f"parameters x weight bytes{where}")]
    if work.keeps_reference:
        parts.append(MemoryPart("frozen reference", "always", weight_bytes, f"parameters x weight bytes{where}"))
    if division.stage == 0:
        moments = ADAM_MOMENTS * work.num_trainable * (1 if work.eight_bit_moments else work.weight_bytes)
        return [*parts, MemoryPart("optimizer", "always", moments, "2 moments x trained parameters x weight bytes, or 1")]
    share = 0 if division.offloads_optimizer else work.num_trainable * FLOAT32 // ranks
    parts.append(MemoryPart("optimizer", "always", ADAM_MOMENTS * share, f"2 moments x trained parameters x 4{by}"))
    parts.append(MemoryPart("float32 weights of the optimizer", "always", share, f"trained parameters x 4{by}"))
    if division.stage == 3:
        parts.append(MemoryPart("gradients", "always", share, f"trained parameters x 4{by}"))
        parts.append(MemoryPart("bucket of gradients", "always", _bucket_bytes(shape, work), "at most 2^26 numbers x weight bytes"))
    return parts


def _update_parts(shape: ModelShape, work: Workload) -> list[MemoryPart]:
    """What lives while a gradient is taken."""
    stage = -1 if work.division is None else work.division.stage
    trained = work.num_trainable * work.weight_bytes
    parts = []
    if stage <= 1:
        parts.append(MemoryPart("gradients", "update", trained, "trained parameters x weight bytes"))
    elif stage == 2 and work.division is not None:
        share = work.num_trainable * FLOAT32 // work.division.num_ranks
        parts.append(MemoryPart("gradients", "update", share, f"trained parameters x 4 / {work.division.num_ranks} ranks"))
    if stage in (1, 2):
        parts.append(MemoryPart("bucket of gradients", "update", _bucket_bytes(shape, work), "at most 2^26 numbers x weight bytes"))
    if stage == 3:
        gathered = min(shape.num_parameters, MAX_GATHERED) * work.weight_bytes + _bucket_bytes(shape, work)
        parts.append(MemoryPart("gathered weights", "update", gathered, "at most 10^9 parameters and a bucket ahead"))
    chunk = min(work.chunk_elements, work.tokens_per_microbatch * shape.vocabulary)
    head = shape.vocabulary * shape.hidden
    converted_head = head * work.compute_bytes if work.compute_bytes < work.weight_bytes else 0
    if work.fused_decoder:
        prepared = round(FUSED_COPIES * shape.num_matrix_parameters) * FLOAT32
        parts.append(MemoryPart("weights as the decoder multiplies them", "update", prepared, "0.8 x matrix parameters x 4"))
    return [
        *parts,
        MemoryPart("weights in the compute type", "update", _converted_bytes(shape, work), "matrix parameters x compute bytes"),
        MemoryPart("activations", "update", activation_bytes(shape, work), "see docs/memory.md"),
        MemoryPart(
            "log-prob chunk",
            "update",
            CHUNK_COPIES * chunk * FLOAT32 + converted_head + head * FLOAT32,
            "3 x chunk of logits, head in the compute type and its gradient",
        ),
    ]


def _converted_bytes(shape: ModelShape, work: Workload) -> int:
    return shape.num_matrix_parameters * work.compute_bytes if work.compute_bytes < work.weight_bytes else 0


def _bucket_bytes(shape: ModelShape, work: Workload) -> int:
    return min(shape.num_parameters, BUCKET_ELEMENTS) * work.weight_bytes


def activation_bytes(shape: ModelShape, work: Workload) -> int:
    """Return what a micro-batch keeps for its backward.

    A pre-norm layer keeps, per token: of each of its two norms the input in float32, the normalised values and the result; the inputs of
    the projections again where autocast converts them; queries, keys, values and what was attended; four values of the gated MLP.
    Matrix-product attention keeps its weights, one per head, query and key. The hand-written decoder keeps less of the norms. With gradient
    checkpointing every layer keeps its input only, and one layer at a time is whole. Tokens are divided where processes share sequences.
    """
    tokens, compute, stored = work.tokens_per_microbatch, work.compute_bytes, work.weight_bytes
    if work.division is not None:
        tokens = -(-tokens // work.division.sequence_parallel_size)
    queries, keys = shape.num_heads * shape.head_dim, shape.num_key_heads * shape.head_dim
    # Frozen norms keep no normalised values, since nobody asks for the gradient of their weights.
    normalised = stored if work.num_trainable == shape.num_parameters else 0
    if work.fused_decoder:
        norms, casts = 2 * shape.hidden * (FLOAT32 + compute), 0
    else:
        norms = 2 * shape.hidden * (FLOAT32 + stored + normalised)
        casts = 5 * shape.hidden * compute if compute < stored else 0
    attention = 2 * (queries + keys) * compute
    mlp = 4 * shape.intermediate * compute
    scores = shape.num_heads * min(work.max_sequence_tokens, math.isqrt(work.max_plain_area), work.tokens_per_microbatch) * compute
    layer = tokens * (norms + casts + attention + mlp + scores)
    final = tokens * shape.hidden * (2 * FLOAT32 + 2 * compute)
    if work.gradient_checkpointing:
        inputs = 0 if work.offloads_activations else shape.num_layers * tokens * shape.hidden * stored
        return inputs + layer + 2 * tokens * shape.intermediate * compute + final
    return (1 if work.offloads_activations else shape.num_layers) * layer + final


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
