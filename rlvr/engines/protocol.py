"""The seam between those who need completions and those who can sample them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from rlvr.types import Completion, Sampling


@runtime_checkable
class Engine(Protocol):
    """Samples completions and tells log-probs, both under the sampling distribution (temperature applied), natural logs."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Draw `sampling.num_samples` completions of one prompt; concurrent calls are batched by the engine.

        The draw depends only on (weights, token_ids, sampling) when `sampling.seed` is set, up to float rounding.
        """
        ...

    async def logprobs(self, token_ids: Sequence[int], temperature: float = 1.0) -> list[float]:
        """Return log p(token t | tokens before t) for each t; entry 0 is 0."""
        ...

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over the policy's weights; completions begun after it carry `version`."""
        ...

    def standby(self) -> None:
        """Give back memory that an update could use; the next `generate` takes it again."""
        ...

    async def close(self) -> None:
        """Stop; requests in flight are cancelled."""
        ...
