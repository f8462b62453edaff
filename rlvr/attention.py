"""The attention function rlvr registers with transformers, so that packing and decoding work with any model that has attention backends.

A caller passes `attention_plan=` to the model's forward; the model hands it, layer by layer, to `attend`. Without a plan the call falls
through to PyTorch's scaled-dot-product attention, causal. Importing this module does not import transformers.
"""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

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
