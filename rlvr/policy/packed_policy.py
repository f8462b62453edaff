"""What every policy over a Hugging Face causal language model shares: scoring, annotation, the reference, exports.

Matrix products run in the compute type through autocast. How gradients become a step is the business of `torch_policy` (one process) and
`deepspeed_policy` (any number).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rlvr.batch import LossInputs, MicroBatch, MiniBatch
from rlvr.batching import build_microbatch, plan_microbatches
from rlvr.policy.allocator import keep_freed_memory
from rlvr.policy.loading import LoadedModel
from rlvr.policy.protocol import Objective
from rlvr.policy.quantization import dequantized, is_quantized
from rlvr.policy.scoring import Scorer, on_rows
from rlvr.policy.seeded import seeded
from rlvr.seeding import derive_seed
from rlvr.types import TrainSample

if TYPE_CHECKING:
    from rlvr.config import OptimizerConfig

Scored = tuple[Tensor, Tensor | None]


class PackedPolicy:
    """The part of `rlvr.policy.protocol.Policy` that does not depend on how a step is taken; see there for what each method promises."""

    def __init__(
        self,
        loaded: LoadedModel,
        scorer: Scorer,
        reference: Scorer | None,
        *,
        optimizer: OptimizerConfig,
        temperature: float,
        num_steps: int,
        tokens_per_microbatch: int,
        seed: int,
    ) -> None:
        """`num_steps` is the number of optimizer steps the schedule spans; `reference` scores with a frozen copy of the weights as they are
        now (with LoRA none is needed: the base is the reference); `tokens_per_microbatch` bounds what `logprobs` computes at once; the
        adapters' dropout is drawn from `seed`."""
        if loaded.device.type == "cpu":
            keep_freed_memory()
        self.version = 0
        self.loaded = loaded
        self.temperature = temperature
        self._scorer = scorer
        self._reference_scorer = reference
        # What runs the forward pass; a policy may put an engine of its own around the scorer.
        self._forward: Callable[..., Scored] = scorer
        self._reference_forward: Callable[..., Scored] | None = reference
        self._optimizer_config = optimizer
        self._num_steps = num_steps
        self._tokens_per_microbatch = tokens_per_microbatch
        self._seed = seed
        self._dropouts = [m for name, m in loaded.model.named_modules() if "lora_dropout" in name and isinstance(m, nn.Dropout)]

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    @property
    def is_whole(self) -> bool:
        """Whether the model's weights are all here, so that it can be sampled from."""
        return True

    def annotate(self, minibatch: MiniBatch, *, old: bool, reference: bool) -> MiniBatch:
        """See `Policy.annotate`."""
        microbatches: Sequence[MicroBatch] = minibatch.microbatches
        if old:
            values = self._all_scored(microbatches, reference=False)
            microbatches = [replace(m, old_logprobs=on_rows(v, m)) for m, v in zip(microbatches, values, strict=True)]
        if reference:
            values = self._all_scored(microbatches, reference=True)
            microbatches = [replace(m, reference_logprobs=on_rows(v, m)) for m, v in zip(microbatches, values, strict=True)]
        return replace(minibatch, microbatches=tuple(microbatches))

    def logprobs(self, samples: Sequence[TrainSample], *, reference: bool = False) -> list[list[float]]:
        """See `Policy.logprobs`."""
        out = [[0.0] * len(sample.token_ids) for sample in samples]
        plan = plan_microbatches(samples, tokens_per_microbatch=self._tokens_per_microbatch, share_prompts=True)
        microbatches = [build_microbatch([samples[i] for i in rows], device=self.loaded.device) for rows in plan]
        for rows, microbatch, values in zip(plan, microbatches, self._all_scored(microbatches, reference=reference), strict=True):
            places = zip(microbatch.target_row.tolist(), microbatch.target_col.tolist(), values.tolist(), strict=True)
            for row, col, value in places:
                out[rows[row]][col] = value
        return out

    def _all_scored(self, microbatches: Sequence[MicroBatch], *, reference: bool) -> list[Tensor]:
        """Return the log-probs of each micro-batch's scored tokens, without gradient."""
        with torch.no_grad(), self._asking(reference) as forward:
            return [forward(microbatch, self.temperature)[0] for microbatch in microbatches]

    @contextmanager
    def _asking(self, reference: bool) -> Iterator[Callable[..., Scored]]:
        """Hold the policy, or its reference, ready to score."""
        if not reference:
            with self._computing(self._scorer):
                yield self._forward
        elif self.loaded.peft_model is not None:
            with self.loaded.peft_model.disable_adapter(), self._computing(self._scorer):
                yield self._forward
        elif self._reference_scorer is None or self._reference_forward is None:
            raise ValueError("this policy keeps no reference: construct it with reference=True")
        else:
            with self._reference_at_hand(), self._computing(self._reference_scorer):
                yield self._reference_forward

    def _computing(self, scorer: Scorer) -> AbstractContextManager:
        return scorer.computing()

    def _reference_at_hand(self) -> AbstractContextManager:
        return nullcontext()

    def _loss_inputs(self, microbatch: MicroBatch, objective: Objective, temperature: float | None) -> LossInputs:
        temperature = self.temperature if temperature is None else temperature
        logprobs, entropy = self._forward(microbatch, temperature, True, objective.needs_entropy)
        assert entropy is not None
        placed = on_rows(logprobs, microbatch)
        return LossInputs(
            logprobs=placed,
            # Without recorded ones this update is the first since sampling, so old and current are one and the ratio is exactly 1.
            old_logprobs=placed.detach() if microbatch.old_logprobs is None else microbatch.old_logprobs,
            behavior_logprobs=microbatch.behavior_logprobs,
            reference_logprobs=microbatch.reference_logprobs,
            advantages=microbatch.advantages,
            mask=microbatch.mask,
            entropy=on_rows(entropy, microbatch),
        )

    @contextmanager
    def _lora_dropout(self, *purpose: str | int) -> Iterator[None]:
        """Switch on the adapters' own dropout, and no other, while their gradient is taken; the same in each run and after a resume."""
        if not self._dropouts:
            yield
            return
        for dropout in self._dropouts:
            dropout.train()
        try:
            with seeded(derive_seed(self._seed, "adapter dropout", self.version, *purpose), self.loaded.device):
                yield
        finally:
            for dropout in self._dropouts:
                dropout.eval()

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `Policy.weights`."""
        return plain_weights(self.model, self._whole)

    def _whole(self, parameters: Sequence[Tensor]) -> AbstractContextManager:
        """Hold parameters whole that are divided among processes."""
        return nullcontext()

    def save_adapter(self, folder: Path) -> None:
        """See `Policy.save_adapter`."""
        assert self.loaded.peft_model is not None, "model.lora is not set"
        self.loaded.peft_model.save_pretrained(str(folder))

    def export(self, folder: Path) -> None:
        """See `Policy.export`."""
        self._write_export(folder, {name: tensor.detach().cpu() for name, tensor in self.weights()})

    def _write_export(self, folder: Path, state: dict[str, Tensor]) -> None:
        plain = _plain_model(self.model, state)
        try:
            plain.save_pretrained(folder)
        except SafetensorError as error:  # A full disk, in the words of a library that does not use Python's own.
            raise OSError(f"{folder}: {error}") from error
        self.loaded.tokenizer.save_pretrained(folder)


def plain_weights(
    model: nn.Module, whole: Callable[[Sequence[Tensor]], AbstractContextManager] = lambda _: nullcontext()
) -> Iterator[tuple[str, Tensor]]:
    """Yield a causal language model's state under its own names, tied names included, adapters merged into the weights they adapt.

    `whole` holds tensors whole that are divided among processes; what is yielded is good until the next is asked for.
    """
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or ".weight." in name:  # Adapters; what belongs to weights in 4 bits.
            continue
        owner, _, leaf = name.rpartition(".base_layer.")
        layer = layers[owner] if owner in layers and leaf == "weight" else None
        adapters = [] if layer is None else [p for n, p in layer.named_parameters() if "lora_" in n]
        with whole([tensor, *adapters]):
            merged = dequantized(tensor) if is_quantized(tensor) else tensor.detach()
            for adapter in layer.active_adapters if layer is not None else ():
                merged = merged + layer.get_delta_weight(adapter).detach().to(merged.dtype)
            yield (f"{owner}.{leaf}" if owner else name), merged


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return what stays as the model is now."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def whole_copy(loaded: LoadedModel) -> nn.Module:
    """Return a copy that can be sampled from, adapters merged, numbers in the place of packed weights."""
    if loaded.is_quantized:
        config = copy.deepcopy(loaded.model.config)
        plain = type(loaded.model)(config)
        plain.load_state_dict({name: tensor.clone() for name, tensor in plain_weights(loaded.model)})
        plain.generation_config = loaded.model.generation_config
        return plain.to(loaded.device).eval().requires_grad_(False)
    if loaded.peft_model is not None:
        return copy.deepcopy(loaded.peft_model).merge_and_unload().eval().requires_grad_(False)
    return frozen_copy(loaded.model)


def _plain_model(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Build the model anew from its configuration, with these weights, without custom attention or adapters."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    return plain
