"""The policy on one process: updated from packed mini-batches with AdamW. Master weights stay as loaded (float32)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlvr.policy.fused_decoder import FusedDecoder
from rlvr.policy.loading import LoadedModel
from rlvr.policy.optimizer import build_optimizer, learning_rate, step_count
from rlvr.policy.packed_policy import PackedPolicy, frozen_copy
from rlvr.policy.protocol import Term, UpdateResult
from rlvr.policy.quantization import is_quantized
from rlvr.policy.scoring import Scorer
from rlvr.policy.state_files import PolicyState, read_state, unreadable, write_state
from rlvr.policy.statistics import Statistics

if TYPE_CHECKING:
    from rlvr.config import OptimizerConfig


class TorchPolicy(PackedPolicy):
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
        """`reference`: whether to keep one; for the others see `PackedPolicy`."""
        super().__init__(
            loaded,
            Scorer(loaded.model, loaded, fused=loaded.fused, offload_activations=loaded.offload_activations),
            _reference(loaded) if reference and loaded.peft_model is None else None,
            optimizer=optimizer,
            temperature=temperature,
            num_steps=num_steps,
            tokens_per_microbatch=tokens_per_microbatch,
            seed=seed,
        )
        self._trained = {name: p for name, p in loaded.model.named_parameters() if p.requires_grad}
        # What is packed in 4 bits stays as it is loaded.
        quantized = {name for name, p in loaded.model.named_parameters() if is_quantized(p)}
        self._packed = {
            name for name in loaded.model.state_dict() if name in quantized or name.partition(".weight.")[0] + ".weight" in quantized
        }
        self._optimizer = build_optimizer(list(self._trained.values()), optimizer)

    def update(self, *terms: Term) -> UpdateResult:
        """See `Policy.update`."""
        loss, stats = self.accumulate_gradients(*terms)
        rate = learning_rate(self._optimizer_config, self.version, self._num_steps)
        grad_norm = float(nn.utils.clip_grad_norm_(self._trained.values(), self._optimizer_config.max_grad_norm, foreach=True))
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
        seen = Statistics()
        # One context for all micro-batches: converted weights are held until it is left.
        with self._lora_dropout(), self._scorer.computing():
            for term in terms:
                for microbatch in term.minibatch.microbatches:
                    inputs = self._loss_inputs(microbatch, term.objective, term.temperature)
                    share, stats = term.objective(inputs, term.minibatch.totals)
                    (share * term.weight).backward()
                    seen.add(float(share.detach()) * term.weight, stats, microbatch.mask)
        for parameter in self._trained.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return seen.loss, seen.means()

    def discard_gradients(self) -> None:
        """Drop what `accumulate_gradients` left."""
        self._optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Write all that further steps depend on; the reference is not among it, since it is what the run was started from."""
        moments: dict[str, dict[str, Tensor]] = {
            name: {key: value for key, value in self._optimizer.state[parameter].items() if key != "step"}
            for name, parameter in self._trained.items()
            if parameter in self._optimizer.state
        }
        write_state(folder, PolicyState(self.version, {n: t for n, t in self.model.state_dict().items() if n not in self._packed}, moments))

    def load(self, folder: Path) -> None:
        """Take over what any policy of the same model saved."""
        state = read_state(folder)
        try:
            found = self.model.load_state_dict(state.weights, strict=False)
            if found.unexpected_keys or set(found.missing_keys) - self._packed:
                raise ValueError(f"other parameters than the model's: {[*found.unexpected_keys, *found.missing_keys][0]}, …")
            for name, parameter in self._trained.items():
                if state.version:
                    moments = {key: value.to(parameter.device, copy=True) for key, value in state.moments[name].items()}
                    step = step_count(self._optimizer_config.kind, state.version, parameter)
                    self._optimizer.state[parameter] = {"step": step, **moments}
        except (RuntimeError, ValueError, KeyError) as error:
            raise unreadable(folder, error) from error
        self.version = state.version


def _reference(loaded: LoadedModel) -> Scorer:
    model = frozen_copy(loaded.model)
    fused = None if loaded.fused is None else FusedDecoder(model.get_decoder(), loaded.fused.shapes)
    return Scorer(model, loaded, fused=fused)
