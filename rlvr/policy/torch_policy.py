"""The policy on one process: any Hugging Face causal language model, updated from packed mini-batches with AdamW.

Master weights stay as loaded (float32); matrix products run in the compute type through autocast. It samples nothing and logs nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from rlvr.batch import LossInputs, MicroBatch, MiniBatch
from rlvr.batching import build_microbatch, plan_microbatches
from rlvr.errors import CheckpointError
from rlvr.logprobs import TokenLogprobs, token_logprobs
from rlvr.policy.allocator import keep_freed_memory
from rlvr.policy.forward import output_head, packed_hidden_states, padded_hidden_states
from rlvr.policy.fused_decoder import FusedDecoder
from rlvr.policy.loading import LoadedModel
from rlvr.policy.optimizer import build_optimizer, learning_rate
from rlvr.policy.packed_attention import PackedAttention
from rlvr.policy.protocol import Objective, Term, UpdateResult
from rlvr.policy.seeded import seeded
from rlvr.seeding import derive_seed
from rlvr.types import TrainSample

if TYPE_CHECKING:
    from rlvr.config import OptimizerConfig

STATE_FILE = "policy.pt"
TOKEN_STEP = 128  # On CPU token counts are rounded up to this: its matrix library builds a kernel for each new shape.


class TorchPolicy:
    """Implements `rlvr.policy.protocol.Policy`; see there for what each method promises."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        optimizer: OptimizerConfig,
        temperature: float = 1.0,
        num_steps: int = 1,
        reference: bool = False,
        tokens_per_microbatch: int = 4096,
        seed: int = 0,
    ) -> None:
        """`num_steps` is the number of optimizer steps the schedule spans; `reference` keeps a frozen copy of the weights as they are now
        (with LoRA none is needed: the base is the reference); `tokens_per_microbatch` bounds what `logprobs` computes at once; the
        adapters' dropout is drawn from `seed`."""
        if loaded.device.type == "cpu":
            keep_freed_memory()
        self.version = 0
        self.loaded = loaded
        self.temperature = temperature
        self._optimizer_config = optimizer
        self._num_steps = num_steps
        self._tokens_per_microbatch = tokens_per_microbatch
        self._seed = seed
        self._parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self._optimizer = build_optimizer(self._parameters, optimizer)
        self._fused = loaded.fused
        self._reference, self._reference_fused = None, None
        if reference and loaded.peft_model is None:
            self._reference = _frozen_copy(loaded.model)
            if self._fused is not None:
                self._reference_fused = FusedDecoder(self._reference.get_decoder(), self._fused.shapes)
        self._dropouts = [m for name, m in loaded.model.named_modules() if "lora_dropout" in name and isinstance(m, nn.Dropout)]

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    def update(self, *terms: Term) -> UpdateResult:
        loss, stats = self.accumulate_gradients(*terms)
        rate = learning_rate(self._optimizer_config, self.version, self._num_steps)
        grad_norm = float(nn.utils.clip_grad_norm_(self._parameters, self._optimizer_config.max_grad_norm, foreach=True))
        # A step on a gradient that is not finite would destroy the weights; the trainer's guard reads the norm and stops the run.
        if math.isfinite(grad_norm) and math.isfinite(loss):
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            self.version += 1
        self.discard_gradients()
        return UpdateResult(loss, grad_norm, rate, stats)

    def accumulate_gradients(self, *terms: Term) -> tuple[float, dict[str, float]]:
        """Leave the gradient of the terms' sum on the parameters; return the loss and the statistics over scored tokens."""
        loss = 0.0
        stats: dict[str, float] = {}
        # One autocast context for all micro-batches: its cache holds the converted weights until it is left.
        with self._autocast(), self._lora_dropout(), self._converted(self._fused):
            for term in terms:
                term_loss, term_stats = self._accumulate(term)
                loss += term_loss
                stats.update(term_stats)
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return loss, stats

    def discard_gradients(self) -> None:
        """Drop what `accumulate_gradients` left."""
        self._optimizer.zero_grad(set_to_none=True)

    def _accumulate(self, term: Term) -> tuple[float, dict[str, float]]:
        """Add one term's gradient; return its weighted loss and its statistics over the scored tokens."""
        loss = 0.0
        collected: dict[str, list[Tensor]] = {}
        num_scored = 0
        for microbatch in term.minibatch.microbatches:
            inputs = self._loss_inputs(microbatch, term.objective, self.temperature if term.temperature is None else term.temperature)
            share, stats = term.objective(inputs, term.minibatch.totals)
            (share * term.weight).backward()
            loss += float(share.detach()) * term.weight
            num_scored += len(microbatch.target_ids)
            for name, values in stats.items():
                at_scored = values[microbatch.mask]
                collected.setdefault(name, []).append(at_scored.max() if name.endswith("_max") else at_scored.sum())
        return loss, {
            name: float(torch.stack(parts).max()) if name.endswith("_max") else float(torch.stack(parts).sum()) / num_scored
            for name, parts in collected.items()
        }

    def _loss_inputs(self, microbatch: MicroBatch, objective: Objective, temperature: float) -> LossInputs:
        scored = self._score(
            self.model, self._fused, microbatch, temperature=temperature, entropy=True, entropy_gradient=objective.needs_entropy
        )
        logprobs = _on_rows(scored.logprobs, microbatch)
        return LossInputs(
            logprobs=logprobs,
            # Without recorded ones this update is the first since sampling, so old and current are one and the ratio is exactly 1.
            old_logprobs=logprobs.detach() if microbatch.old_logprobs is None else microbatch.old_logprobs,
            behavior_logprobs=microbatch.behavior_logprobs,
            reference_logprobs=microbatch.reference_logprobs,
            advantages=microbatch.advantages,
            mask=microbatch.mask,
            entropy=_on_rows(scored.entropy, microbatch),
        )

    def _score(
        self,
        model: nn.Module,
        fused: FusedDecoder | None,
        microbatch: MicroBatch,
        *,
        temperature: float,
        entropy: bool = False,
        entropy_gradient: bool = False,
    ) -> TokenLogprobs:
        if self.loaded.attention == "padded":
            hidden = padded_hidden_states(model.get_decoder(), microbatch)
        else:
            plan = PackedAttention(microbatch.layout, num_tokens=len(microbatch.token_ids), length_step=1 if fused is None else TOKEN_STEP)
            if fused is not None and plan.plain:
                hidden = fused.hidden_states(microbatch, plan)
            else:
                plan = PackedAttention(microbatch.layout, num_tokens=len(microbatch.token_ids))
                hidden = packed_hidden_states(model.get_decoder(), microbatch, plan)
        num_scored = len(microbatch.target_ids)
        filling = (0, -num_scored % TOKEN_STEP if fused is not None else 0)
        scored = token_logprobs(
            hidden.index_select(0, F.pad(microbatch.source_index, filling)),
            F.pad(microbatch.target_ids, filling),
            output_head(model),
            temperature=temperature,
            entropy=entropy,
            entropy_gradient=entropy_gradient,
            dtype=self.loaded.compute_dtype,
        )
        return TokenLogprobs(scored.logprobs[:num_scored], None if scored.entropy is None else scored.entropy[:num_scored])

    def annotate(self, minibatch: MiniBatch, *, old: bool, reference: bool) -> MiniBatch:
        filled = []
        with torch.no_grad(), self._autocast(), self._converted(self._fused), self._converted(self._reference_fused):
            for microbatch in minibatch.microbatches:
                if old:
                    microbatch = replace(microbatch, old_logprobs=_on_rows(self._policy_logprobs(microbatch), microbatch))
                if reference:
                    microbatch = replace(microbatch, reference_logprobs=_on_rows(self._reference_logprobs(microbatch), microbatch))
                filled.append(microbatch)
        return replace(minibatch, microbatches=tuple(filled))

    def logprobs(self, samples: Sequence[TrainSample], *, reference: bool = False) -> list[list[float]]:
        out = [[0.0] * len(sample.token_ids) for sample in samples]
        with torch.no_grad(), self._autocast(), self._converted(self._reference_fused if reference else self._fused):
            for rows in plan_microbatches(samples, tokens_per_microbatch=self._tokens_per_microbatch, share_prompts=True):
                microbatch = build_microbatch([samples[i] for i in rows], device=self.loaded.device)
                values = self._reference_logprobs(microbatch) if reference else self._policy_logprobs(microbatch)
                places = zip(microbatch.target_row.tolist(), microbatch.target_col.tolist(), values.tolist(), strict=True)
                for row, col, value in places:
                    out[rows[row]][col] = value
        return out

    def _policy_logprobs(self, microbatch: MicroBatch) -> Tensor:
        return self._score(self.model, self._fused, microbatch, temperature=self.temperature).logprobs

    def _reference_logprobs(self, microbatch: MicroBatch) -> Tensor:
        if self.loaded.peft_model is not None:
            with self.loaded.peft_model.disable_adapter():
                return self._policy_logprobs(microbatch)
        if self._reference is None:
            raise ValueError("this policy keeps no reference: construct it with reference=True")
        return self._score(self._reference, self._reference_fused, microbatch, temperature=self.temperature).logprobs

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from plain_weights(self.model)

    def save_adapter(self, folder: Path) -> None:
        """See `Policy.save_adapter`."""
        assert self.loaded.peft_model is not None, "model.lora is not set"
        self.loaded.peft_model.save_pretrained(str(folder))

    def save(self, folder: Path) -> None:
        """Write all that further steps depend on; the reference is not among it, since it is what the run was started from."""
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: tensor for name, tensor in self.model.state_dict().items()}
        torch.save({"version": self.version, "model": trained, "optimizer": self._optimizer.state_dict()}, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        file = folder / STATE_FILE
        try:
            state = torch.load(file, map_location=self.loaded.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise CheckpointError(
                f"{file} cannot be read as this policy's state ({reason}): leave the run's model settings as they were, "
                "or resume from an older checkpoint"
            ) from error
        self.version = state["version"]

    def export(self, folder: Path) -> None:
        state = {name: tensor.detach().cpu() for name, tensor in plain_weights(self.model)}
        plain = _plain_model(self.model, state)
        try:
            plain.save_pretrained(folder)
        except SafetensorError as error:  # A full disk, in the words of a library that does not use Python's own.
            raise OSError(f"{folder}: {error}") from error
        self.loaded.tokenizer.save_pretrained(folder)

    def _autocast(self) -> AbstractContextManager:
        dtype = self.loaded.compute_dtype
        return torch.autocast(self.loaded.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _converted(self, fused: FusedDecoder | None) -> AbstractContextManager:
        return nullcontext() if fused is None else fused.converted_weights(self.loaded.compute_dtype)

    @contextmanager
    def _lora_dropout(self) -> Iterator[None]:
        """Switch on the adapters' own dropout, and no other, while their gradient is taken; the same in each run and after a resume."""
        if not self._dropouts:
            yield
            return
        for dropout in self._dropouts:
            dropout.train()
        try:
            with seeded(derive_seed(self._seed, "adapter dropout", self.version), self.loaded.device):
                yield
        finally:
            for dropout in self._dropouts:
                dropout.eval()


def plain_weights(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Yield a causal language model's state under its own names, tied names included, adapters merged into the weights they adapt."""
    state = model.state_dict()
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in layers and leaf == "weight":
            layer = layers[owner]
            for adapter in layer.active_adapters:
                tensor = tensor + layer.get_delta_weight(adapter).to(tensor.dtype)
        yield (f"{owner}.{leaf}" if owner else name), tensor


def _plain_model(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Build the model anew from its configuration, without custom attention or adapters."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    return plain


def _frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)


def _on_rows(values: Tensor, microbatch: MicroBatch) -> Tensor:
    """Put one value per scored token on its place in [B, L]; 0 elsewhere."""
    out = torch.zeros(microbatch.mask.shape, dtype=values.dtype, device=values.device)
    return out.index_put((microbatch.target_row, microbatch.target_col), values)
