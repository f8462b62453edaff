"""The seam between those who need completions and those who can sample them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig, ModelConfig, WeightSyncConfig
from rlvr.types import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NamedTensors = Iterable[tuple[str, Tensor]]


class Replica(Protocol):
    """One who holds a copy of the weights and can be asked by itself."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Samples completions and tells log-probs, natural logs; those of completions under the sampling distribution (temperature applied)."""

    shares_weights: bool
    """Whether it samples with the policy's own module, so that there is nothing to bring over."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Draw `sampling.num_samples` completions of one prompt; concurrent calls are batched by the engine.

        The draw depends only on (weights, token_ids, sampling) when `sampling.seed` is set, up to float rounding.
        """
        ...

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Return log p(token t | tokens before t) at temperature 1 for each t; entry 0 is 0."""
        ...

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """Take over the policy's full state dict; returns once everything begun from now on is sampled with it and carries `version`."""
        ...

    def replicas(self) -> Sequence[Replica]:
        """Those who hold a copy of the weights each; itself where there is only one. One that was lost and came back is another."""
        ...

    async def standby(self) -> None:
        """Give back memory that an update could use; the next `generate` or `load_weights` takes it again."""
        ...

    async def close(self) -> None:
        """Stop; requests in flight are cancelled."""
        ...


@runtime_checkable
class TakesAdapters(Protocol):
    """An engine that can sample with low-rank adapters over weights it keeps; only they have to be sent."""

    takes_adapters: bool
    """Whether it was opened for them."""

    async def load_adapter(self, folder: Path, version: int) -> None:
        """Take over the adapters in a folder that peft's `save_pretrained` wrote; completions begun after it carry `version`.

        Those being written keep their adapters. The folder may be removed once a later version has been taken over.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineSetting:
    """What an engine may be built from. `model` is the policy's own, or a copy where the policy's weights are divided among processes
    (`shares_weights` False). `compute_dtype` is the type that `config.dtype` auto means.

    No request is longer than `max_sequence_tokens`. `run_folder` is where an engine may keep files that trainer and servers share. `tell`
    is for what a person should know while it waits: servers that are awaited, lost, and back.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    model_config: ModelConfig
    config: EngineConfig
    sync: WeightSyncConfig
    compute: ComputeThread
    compute_dtype: torch.dtype
    max_sequence_tokens: int
    run_folder: Path
    shares_weights: bool = True
    tell: Callable[[str], None] = print

    @property
    def sends_adapters(self) -> bool:
        """Whether adapters are to be sent alone to an engine that can take them."""
        return self.model_config.lora is not None and self.sync.adapters != "merged"

    @property
    def dtype(self) -> torch.dtype:
        """The type of matrix products while decoding."""
        return decoding_dtype(self.config, self.compute_dtype)


class EngineClass(Protocol):
    """What is registered under an engine's name."""

    async def open(self, setting: EngineSetting) -> Engine:
        """Build the engine and return it once it can sample."""
        ...


def decoding_dtype(config: EngineConfig, compute_dtype: torch.dtype) -> torch.dtype:
    """Resolve `auto` to the policy's compute type."""
    return compute_dtype if config.dtype == "auto" else getattr(torch, config.dtype)


def check_request(token_ids: Sequence[int], sampling: Sampling) -> None:
    """Raises: ValueError: an empty prompt or a limit below 1."""
    if not token_ids:
        raise ValueError("the prompt has no tokens: give at least a begin-of-text token")
    if sampling.max_new_tokens < 1 or sampling.num_samples < 1:
        raise ValueError(f"max_new_tokens={sampling.max_new_tokens} and num_samples={sampling.num_samples} must be at least 1")


def stop_token_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end a completion: the generation configuration's, and the tokenizer's end-of-text token."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
