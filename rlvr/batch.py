"""What a policy is updated on: packed micro-batches with the totals that normalise them, and what a loss sees of one.

Sequences are packed: the token axis T holds every token once, padding never, and a prompt shared by a group once. What a loss sees is
rectangular, [B, L], row b being sequence b, because that is how the papers write their formulas; only float values of no great size live
there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Which packed tokens attend to which: R attention rows over the packed axis T.

    Row r's queries are the packed tokens `query_index[r]` (where `query_mask`), its keys `key_index[r]` (where `key_mask`).
    Query i of row r sees keys 0 … `query_start[r] + i`. A plain sequence is one row with equal queries and keys and start 0; a
    completion behind a shared prompt is a row whose keys are prompt and completion and whose queries are the completion, starting
    at the prompt's length.
    Padded entries of an index are 0.
    """

    query_index: Int[Tensor, "R Q"]
    query_mask: Bool[Tensor, "R Q"]
    key_index: Int[Tensor, "R K"]
    key_mask: Bool[Tensor, "R K"]
    query_start: Int[Tensor, " R"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """B sequences packed into T tokens, with N scored tokens among them (those whose `mask` is True).

    Scored token n is `target_ids[n]`, predicted from the hidden state of packed token `source_index[n]`, and stands at
    [`target_row[n]`, `target_col[n]`] of the [B, L] tensors, in row-major order.
    """

    token_ids: Int[Tensor, " T"]
    position_ids: Int[Tensor, " T"]
    layout: PackedLayout
    source_index: Int[Tensor, " N"]
    target_ids: Int[Tensor, " N"]
    target_row: Int[Tensor, " N"]
    target_col: Int[Tensor, " N"]
    mask: Bool[Tensor, "B L"]
    advantages: Float[Tensor, "B L"]
    behavior_logprobs: Float[Tensor, "B L"]
    old_logprobs: Float[Tensor, "B L"] | None = None
    reference_logprobs: Float[Tensor, "B L"] | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What losses are divided by, over all ranks and micro-batches of one update, known before the first forward.

    `tokens`: scored tokens. `sequences`: sequences, those left out for having zero advantage included. `max_new_tokens`: the
    sampling limit, the constant of Dr. GRPO.
    """

    tokens: int
    sequences: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """The micro-batches of one optimizer step. `microbatches` may be empty: then the gradient is exactly zero."""

    microbatches: tuple[MicroBatch, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class LossInputs:
    """All a loss may look at. Values where `mask` is False are unspecified and must not matter.

    `old_logprobs` are the policy's before this step's first update (detached `logprobs` when the update is the first and only one),
    `behavior_logprobs` the engine's. `entropy` has a gradient only when the objective asked for it.
    """

    logprobs: Float[Tensor, "B L"]
    old_logprobs: Float[Tensor, "B L"]
    behavior_logprobs: Float[Tensor, "B L"]
    reference_logprobs: Float[Tensor, "B L"] | None
    advantages: Float[Tensor, "B L"]
    mask: Bool[Tensor, "B L"]
    entropy: Float[Tensor, "B L"] | None = None


@dataclass(frozen=True, slots=True)
class LossOutput:
    """A per-token loss, never averaged (one `aggregate` does that), with detached statistics.

    `stats` maps a name to a per-token value [B, L]; the trainer reports its mean over scored tokens.
    """

    token_loss: Float[Tensor, "B L"]
    stats: dict[str, Tensor] = field(default_factory=dict)
