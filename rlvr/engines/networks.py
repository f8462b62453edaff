"""How the embedded engine runs the policy's module: with our attention plan, or with transformers' own cache.

A network turns tokens into logits; it knows nothing of rows, sampling or stopping.
"""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlvr.attention import AttentionPlan


@runtime_checkable
class Network(Protocol):
    """A causal language model whose attention is decided by a plan."""

    def refresh(self) -> None:
        """Take over the module's present weights."""
        ...

    def __call__(
        self, token_ids: Int[Tensor, "B T"], position_ids: Int[Tensor, "B T"], plan: AttentionPlan, *, last_only: bool
    ) -> Float[Tensor, "B S V"]:
        """Return float32 logits, of the last position only or of all."""
        ...


class ModuleCopy:
    """The module itself, or a copy in another floating type that `refresh` keeps equal to it."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._source = model
        self.model = model
        parameters = list(model.parameters())
        if any(p.dtype != dtype for p in parameters):
            # Buffers keep their type: rotary frequencies in bfloat16 would give wrong angles at long distances.
            memo = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in parameters}
            self.model = copy.deepcopy(model, memo).eval()  # A checkpointed layer in training mode drops the cache it is given.

    def refresh(self) -> None:
        if self.model is not self._source:
            for mine, theirs in zip(self.model.parameters(), self._source.parameters(), strict=True):
                mine.copy_(theirs.detach())


class PlannedNetwork:
    """The module's own forward with the attention plan passed through; for models loaded with rlvr's attention."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._copy = ModuleCopy(model, dtype)

    def refresh(self) -> None:
        self._copy.refresh()

    def __call__(
        self, token_ids: Int[Tensor, "B T"], position_ids: Int[Tensor, "B T"], plan: AttentionPlan, *, last_only: bool
    ) -> Float[Tensor, "B S V"]:
        output = self._copy.model(
            input_ids=token_ids,
            position_ids=position_ids,
            attention_plan=plan,
            use_cache=False,
            logits_to_keep=1 if last_only else 0,
        )
        return output.logits.float()
