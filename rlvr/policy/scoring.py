"""From a packed micro-batch to the log-probs of its scored tokens, by one model: the forward pass that every policy shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rlvr.batch import MicroBatch
from rlvr.logprobs import token_logprobs
from rlvr.policy.forward import output_head, packed_hidden_states, padded_hidden_states
from rlvr.policy.fused_decoder import FusedDecoder
from rlvr.policy.loading import LoadedModel
from rlvr.policy.packed_attention import PackedAttention
from rlvr.policy.ulysses import SequenceGroup

TOKEN_STEP = 128  # On CPU token counts are rounded up to this: its matrix library builds a kernel for each new shape.


class Scorer(nn.Module):
    """Scores micro-batches with a causal language model. `head` is a module of its own, so that what shards weights by module
    (ZeRO stage 3) knows when the output projection is needed."""

    def __init__(
        self,
        model: nn.Module,
        loaded: LoadedModel,
        *,
        fused: FusedDecoder | None = None,
        sequence: SequenceGroup | None = None,
        offload_activations: bool = False,
    ) -> None:
        """`model` has the types, device and attention of `loaded`. `sequence`: the processes that share each micro-batch's tokens.
        `offload_activations`: keep what the backward needs in the host's memory."""
        super().__init__()
        self.model = model
        self.head = _Head(model, loaded.compute_dtype)
        self._attention = loaded.attention
        self._compute_dtype = loaded.compute_dtype
        self._fused = fused
        self._sequence = sequence
        self._offload_activations = offload_activations

    def forward(
        self, microbatch: MicroBatch, temperature: float, entropy: bool = False, entropy_gradient: bool = False
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"] | None]:
        """Return log-prob and, if asked for, entropy of each scored token; the entropy has a gradient if `entropy_gradient`."""
        with self._kept_activations():
            if self._sequence is not None:
                return self._shared(self._sequence, microbatch, temperature, entropy, entropy_gradient)
            hidden = self._hidden_states(microbatch)
        num_scored = len(microbatch.target_ids)
        filling = (0, -num_scored % TOKEN_STEP if self._fused is not None else 0)
        logprobs, entropies = self.head(
            hidden.index_select(0, F.pad(microbatch.source_index, filling)),
            F.pad(microbatch.target_ids, filling),
            temperature,
            entropy,
            entropy_gradient,
        )
        return logprobs[:num_scored], None if entropies is None else entropies[:num_scored]

    def _hidden_states(self, microbatch: MicroBatch) -> Float[Tensor, "T H"]:
        decoder = self.model.get_decoder()
        if self._attention == "padded":
            return padded_hidden_states(decoder, microbatch)
        if self._fused is not None:
            plan = PackedAttention(microbatch.layout, num_tokens=len(microbatch.token_ids), length_step=TOKEN_STEP)
            if plan.plain:
                return self._fused.hidden_states(microbatch, plan)
        return packed_hidden_states(decoder, microbatch)

    def _shared(
        self, sequence: SequenceGroup, microbatch: MicroBatch, temperature: float, entropy: bool, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run this process's share of the tokens; put everyone's scores together."""
        share = sequence.share(microbatch)
        hidden = packed_hidden_states(self.model.get_decoder(), share.microbatch, share.attention)
        logprobs, entropies = self.head(
            hidden.index_select(0, share.microbatch.source_index), share.microbatch.target_ids, temperature, entropy, entropy_gradient
        )
        num_scored = len(microbatch.target_ids)
        return (
            sequence.put_together(logprobs, share.scored, num_scored),
            None if entropies is None else sequence.put_together(entropies, share.scored, num_scored),
        )

    def _kept_activations(self) -> AbstractContextManager:
        if not self._offload_activations or not torch.is_grad_enabled():
            return nullcontext()
        return torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())

    @contextmanager
    def computing(self, *, keep_converted: bool = True) -> Iterator[None]:
        """Hold what several micro-batches share: weights converted to the compute type, unless they change hands in between
        (`keep_converted` False)."""
        dtype = self._compute_dtype
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=keep_converted):
            with nullcontext() if self._fused is None else self._fused.converted_weights(dtype):
                yield


class _Head(nn.Module):
    """The output projection, by chunks of tokens; its weights stay the model's."""

    def __init__(self, model: nn.Module, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self._model = (model,)  # In a tuple: not a part of this module.
        self._compute_dtype = compute_dtype

    @property
    def parameters_used(self) -> list[nn.Parameter]:
        """Whose values it needs: the projection's weight, which may be tied, and its bias."""
        head = output_head(self._model[0])
        return [tensor for tensor in (head.weight, head.bias) if isinstance(tensor, nn.Parameter)]

    def forward(self, hidden: Tensor, target_ids: Tensor, temperature: float, entropy: bool, entropy_gradient: bool):
        scored = token_logprobs(
            hidden,
            target_ids,
            output_head(self._model[0]),
            temperature=temperature,
            entropy=entropy,
            entropy_gradient=entropy_gradient,
            dtype=self._compute_dtype,
        )
        return scored.logprobs, scored.entropy


def on_rows(values: Float[Tensor, " N"], microbatch: MicroBatch) -> Float[Tensor, "B L"]:
    """Put one value per scored token on its place; 0 elsewhere."""
    out = torch.zeros(microbatch.mask.shape, dtype=values.dtype, device=values.device)
    return out.index_put((microbatch.target_row, microbatch.target_col), values)
