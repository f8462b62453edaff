"""The policy on any number of processes, by DeepSpeed ZeRO: the same step as `TorchPolicy`, with what it needs divided among them.

DeepSpeed averages gradients over processes. Here each process's loss is a sum over its own samples divided by totals of all of them, so it
is multiplied by their number first: the gradient is that of one process that had all samples. In the stages that move gradients or weights
during the backward the processes must run equally many micro-batches; those with fewer run an anchor, whose gradient is exactly zero.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlvr.batch import MicroBatch
from rlvr.batching import build_microbatch
from rlvr.distributed import Ranks
from rlvr.errors import ConfigError, MissingExtra
from rlvr.policy.loading import LoadedModel
from rlvr.policy.optimizer import build_optimizer, learning_rate
from rlvr.policy.packed_policy import PackedPolicy, frozen_copy
from rlvr.policy.protocol import Term, UpdateResult
from rlvr.policy.scoring import Scorer
from rlvr.policy.state_files import PolicyState, read_state, unreadable, write_state
from rlvr.policy.statistics import Statistics, joined
from rlvr.policy.ulysses import SequenceGroup, check_heads
from rlvr.types import TrainSample

if TYPE_CHECKING:
    from rlvr.config import DeepSpeedConfig, OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET_ELEMENTS = 1 << 26
"""Numbers that are sent at once; DeepSpeed's own 5e8 would take 2 GB of buffers from a model of any size."""

ANCHOR = TrainSample(
    token_ids=(0, 0),
    loss_mask=(False, True),
    behavior_logprobs=(0.0, 0.0),
    advantages=(0.0, 0.0),
    policy_version=0,
    group_index=0,
)


class DeepSpeedPolicy(PackedPolicy):
    """Implements `rlvr.policy.protocol.Policy`; see there for what each method promises. Every method but `logprobs` and `annotate` is a
    meeting of all ranks, and those two are in ZeRO stage 3 and with shared sequences."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        optimizer: OptimizerConfig,
        config: DeepSpeedConfig,
        ranks: Ranks,
        temperature: float = 1.0,
        num_steps: int = 1,
        reference: bool = False,
        tokens_per_microbatch: int = 4096,
        seed: int = 0,
    ) -> None:
        """`reference`: whether to keep one; for the others see `PackedPolicy`."""
        if optimizer.kind != "adamw":
            raise ConfigError(f"optimizer.kind={optimizer.kind} does not go with deepspeed: set adamw, whose state is divided instead")
        if loaded.is_quantized:
            raise ConfigError("model.lora.quantization=nf4 does not go with deepspeed: set it to none")
        self._config = config
        self._ranks = ranks
        self._shards_weights = config.zero_stage == 3
        sequence = _sequence_group(loaded, config, ranks)
        self._in_step = self._shards_weights or sequence is not None
        reference_model = frozen_copy(loaded.model) if reference and loaded.peft_model is None else None
        super().__init__(
            loaded,
            Scorer(loaded.model, loaded, sequence=sequence, offload_activations=loaded.offload_activations),
            None if reference_model is None else Scorer(reference_model, loaded, sequence=sequence),
            optimizer=optimizer,
            temperature=temperature,
            num_steps=num_steps,
            tokens_per_microbatch=tokens_per_microbatch,
            seed=seed,
        )
        anchor = build_microbatch([ANCHOR], device=loaded.device)
        self._anchor = replace(anchor, reference_logprobs=torch.zeros_like(anchor.advantages))
        self._trained = {name: p for name, p in loaded.model.named_parameters() if p.requires_grad}
        self._engine = self._open(self._scorer, build_optimizer(list(self._trained.values()), optimizer))
        self._forward = self._engine
        if self._reference_scorer is not None and self._shards_weights:
            self._reference_forward = self._open(self._reference_scorer, None)
        elif reference_model is not None and config.offload_reference:
            reference_model.to("cpu")

    def _open(self, scorer: Scorer, optimizer: torch.optim.Optimizer | None) -> Any:
        """Put a DeepSpeed engine around a scorer."""
        try:
            import deepspeed
        except ImportError as error:
            raise MissingExtra("deepspeed.zero_stage needs the extra: pip install 'rlvr[deepspeed]'") from error
        # A shortcut between ranks of one machine, not needed over gloo: building it takes a C++ compiler and most of a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.utils.logger.setLevel("WARNING")
        warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated", category=FutureWarning)  # DeepSpeed's calls.
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist_backend="nccl" if self.loaded.device.type == "cuda" else "gloo", auto_mpi_discovery=False)
        engine, *_ = deepspeed.initialize(model=scorer, optimizer=optimizer, config=self._settings(scorer, optimizer is not None))
        if self._shards_weights:
            for parameter in scorer.head.parameters_used:
                deepspeed.zero.register_external_parameter(scorer.head, parameter)
        scorer.eval()
        return engine

    def _settings(self, scorer: Scorer, trained: bool) -> dict[str, Any]:
        config, parameters = self._config, list(scorer.parameters())
        elements = min(BUCKET_ELEMENTS, sum(p.numel() for p in parameters))
        zero: dict[str, Any] = {
            "stage": config.zero_stage,
            "reduce_bucket_size": elements,
            "overlap_comm": self.loaded.device.type == "cuda",
        }
        if config.zero_stage == 3:
            zero |= {"stage3_prefetch_bucket_size": elements, "stage3_param_persistence_threshold": 0}
        else:
            zero["allgather_bucket_size"] = elements
        if config.offload_optimizer and trained:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": self.loaded.device.type == "cuda"}
        if config.offload_parameters:
            zero["offload_param"] = {"device": "cpu", "pin_memory": self.loaded.device.type == "cuda"}
        settings: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            # Stage 0 has no optimizer of DeepSpeed's to clip; this policy does it.
            "gradient_clipping": self._optimizer_config.max_grad_norm if config.zero_stage else 0.0,
            "steps_per_print": None,
        }
        if parameters[0].dtype == torch.bfloat16:
            if config.zero_stage == 0:
                raise ConfigError(
                    "deepspeed.zero_stage=0 with model.weights_dtype=bfloat16 would keep no float32 weights to learn in: set zero_stage=1"
                )
            settings |= {"bf16": {"enabled": True, "check_grad_overflow": True}, "data_types": {"grad_accum_dtype": "fp32"}}
        return settings | config.options

    @property
    def is_whole(self) -> bool:
        """See `PackedPolicy.is_whole`."""
        return not self._shards_weights

    def update(self, *terms: Term) -> UpdateResult:
        """See `Policy.update`."""
        seen = Statistics()
        planned = [(term, microbatch) for term in terms for microbatch in self._lined_up(term.minibatch.microbatches)]
        if not planned:
            planned = [(terms[0], self._anchor)]
        with self._lora_dropout(self._ranks.rank), self._computing(self._scorer):
            for number, (term, microbatch) in enumerate(planned, start=1):
                self._engine.set_gradient_accumulation_boundary(number == len(planned))
                self._backward(term, microbatch, seen)
        everyone = self._ranks.everyones((seen.loss, seen.sums()))
        # Processes that share sequences have each computed the whole loss of theirs.
        loss = sum(loss for loss, _ in everyone) / self._config.sequence_parallel_size
        rate = learning_rate(self._optimizer_config, self.version, self._num_steps)
        grad_norm = self._step(rate, loss)
        return UpdateResult(loss, grad_norm, rate, joined([sums for _, sums in everyone]))

    def _backward(self, term: Term, microbatch: MicroBatch, seen: Statistics) -> None:
        # An anchor goes the whole way: what divides weights expects the same modules, in the same order, of every process.
        inputs = self._loss_inputs(microbatch, term.objective, term.temperature)
        share, stats = term.objective(inputs, term.minibatch.totals)
        if microbatch is self._anchor:
            share = share * 0.0
        else:
            seen.add(float(share.detach()) * term.weight, stats, microbatch.mask)
        self._engine.backward(share * term.weight * self._ranks.size, scale_wrt_gas=False)

    def _step(self, rate: float, loss: float) -> float:
        """Clip and step, unless loss or gradient is not finite; returns the norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        if self._config.zero_stage == 0:
            gradients = [p for p in self._trained.values() if p.grad is not None]
            grad_norm = float(nn.utils.clip_grad_norm_(gradients, self._optimizer_config.max_grad_norm, foreach=True))
            if math.isfinite(grad_norm) and math.isfinite(loss):
                self._engine.step()
                self.version += 1
            else:
                self._engine.zero_grad()
            return grad_norm
        self._engine.step()
        # DeepSpeed takes no step on a gradient that is not finite, as a loss that is not finite makes it.
        taken = self._engine.was_step_applied()
        self.version += taken
        return float(self._engine.get_global_grad_norm()) if taken else math.inf

    def _lined_up(self, microbatches: Sequence[MicroBatch]) -> list[MicroBatch]:
        """Fill up with anchors to the largest number of micro-batches on any rank."""
        missing = self._ranks.largest(len(microbatches)) - len(microbatches)
        return [*microbatches, *[self._anchor] * missing]

    def _all_scored(self, microbatches: Sequence[MicroBatch], *, reference: bool) -> list[Tensor]:
        planned = self._lined_up(microbatches) if self._in_step else microbatches
        return super()._all_scored(planned, reference=reference)[: len(microbatches)]

    def _computing(self, scorer: Scorer) -> AbstractContextManager:
        # Weights that are divided are there while their layer runs; a copy of each in the compute type would keep them all.
        return scorer.computing(keep_converted=not self._shards_weights)

    @contextmanager
    def _reference_at_hand(self) -> Iterator[None]:
        if not self._config.offload_reference:
            yield
            return
        assert self._reference_scorer is not None
        self._reference_scorer.to(self.loaded.device)
        try:
            yield
        finally:
            self._reference_scorer.to("cpu")

    def _whole(self, parameters: Sequence[Tensor]) -> AbstractContextManager:
        divided = [p for p in parameters if hasattr(p, "ds_id")]
        if not divided:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(divided)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `Policy.weights`."""
        for name, tensor in super().weights():
            yield name, tensor.clone() if self._shards_weights else tensor

    def save_adapter(self, folder: Path) -> None:
        """See `Policy.save_adapter`."""
        with self._whole(list(self._trained.values())):
            super().save_adapter(folder)

    def export(self, folder: Path) -> None:
        """See `Policy.export`; the main rank writes."""
        state = {}
        for name, tensor in self.weights():
            if self._ranks.is_main:
                state[name] = tensor.detach().cpu()
        if self._ranks.is_main:
            self._write_export(folder, state)

    def save(self, folder: Path) -> None:
        """Write all that further steps depend on, each rank its share of the names; the reference is not among it."""
        weights: dict[str, Tensor] = {}
        moments: dict[str, dict[str, Tensor]] = {}
        for number, (name, tensor) in enumerate(self.model.state_dict(keep_vars=True).items()):
            value = self._value(tensor)
            if number % self._ranks.size == self._ranks.rank:
                weights[name] = value
        self._link_moments()
        for number, (name, parameter) in enumerate(self._trained.items() if self.version else ()):
            values = {key: self._moment(parameter, key) for key in MOMENTS}
            if number % self._ranks.size == self._ranks.rank:
                moments[name] = values
        write_state(folder, PolicyState(self.version, weights, moments), part=self._ranks.rank)

    def _value(self, tensor: Tensor) -> Tensor:
        """Return a weight whole, on the CPU; a trained one as it is trained, which is in float32."""
        from deepspeed.utils import safe_get_full_fp32_param

        if tensor.requires_grad and self._config.zero_stage:
            return safe_get_full_fp32_param(tensor).detach().cpu()
        with self._whole([tensor]):
            return tensor.detach().cpu().clone()

    def _moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        if self._config.zero_stage == 0:
            return self._engine.optimizer.state[parameter][key].detach().cpu()
        return safe_get_full_optimizer_state(parameter, key).detach().cpu()

    def load(self, folder: Path) -> None:
        """Take over what any policy of the same model saved, on any number of processes."""
        state = read_state(folder)
        try:
            for name, tensor in self.model.state_dict(keep_vars=True).items():
                self._set_value(tensor, state.weights[name])
            if state.version:
                self._make_moments(state.version)
            for name, parameter in self._trained.items() if state.version else ():
                for key in MOMENTS:
                    self._set_moment(parameter, key, state.moments[name][key])
        except (RuntimeError, ValueError, KeyError, AssertionError) as error:
            raise unreadable(folder, error) from error
        self.version = state.version

    @torch.no_grad()
    def _set_value(self, tensor: Tensor, value: Tensor) -> None:
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        divided = hasattr(tensor, "ds_id")
        with deepspeed.zero.GatheredParameters([tensor], modifier_rank=0, enabled=divided):
            if tensor.shape != value.shape:
                raise ValueError(f"a weight of shape {tuple(value.shape)} for one of {tuple(tensor.shape)}")
            if not divided or self._ranks.is_main:
                tensor.data.copy_(value)
        if tensor.requires_grad and self._config.zero_stage:
            safe_set_full_fp32_param(tensor, value.to(self.loaded.device, torch.float32))

    def _make_moments(self, num_steps: int) -> None:
        """Let the optimizer have its moments before its first step, as after `num_steps`."""
        optimizer = self._engine.optimizer
        if self._config.zero_stage == 0:
            inner, trained = optimizer, list(self._trained.values())
        else:
            inner = optimizer.optimizer
            trained = optimizer.fp32_partitioned_groups_flat if self._shards_weights else optimizer.single_partition_of_fp32_groups
        for flat in trained:
            step = torch.tensor(float(num_steps), device=flat.device)
            inner.state[flat] = {"step": step} | {key: torch.zeros_like(flat.data) for key in MOMENTS}
        self._link_moments()

    def _link_moments(self) -> None:
        """Let DeepSpeed find each parameter's moments: it looks by itself after the first group's first step, before the second has any."""
        optimizer = self._engine.optimizer
        if self._config.zero_stage in (1, 2) and optimizer.optimizer.state:
            optimizer._hp_optimizer_states_linked = False
            optimizer._lazy_init_hp_params_optimizer_state()

    @torch.no_grad()
    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        value = value.to(self.loaded.device, copy=True)
        if self._config.zero_stage == 0:
            self._engine.optimizer.state[parameter][key] = value
        else:
            safe_set_full_optimizer_state(parameter, value, key)


def _sequence_group(loaded: LoadedModel, config: DeepSpeedConfig, ranks: Ranks) -> SequenceGroup | None:
    """Make the groups of processes that share sequences: neighbours by rank."""
    size = config.sequence_parallel_size
    if size == 1:
        return None
    text = loaded.model.config.get_text_config()
    num_key_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    where = f"deepspeed.sequence_parallel_size={size}"
    if ranks.size % size:
        raise ConfigError(f"{where} does not divide the {ranks.size} processes")
    if loaded.attention != "packed":
        raise ConfigError(f"{where} needs packed attention, which {type(loaded.model).__name__} cannot do: set it to 1")
    if fault := check_heads(text.num_attention_heads, num_key_heads, size):
        raise ConfigError(f"{where} does not fit {type(loaded.model).__name__}: it does not divide {fault}")
    mine = None
    for first in range(0, ranks.size, size):
        group = dist.new_group(list(range(first, first + size)))
        if first <= ranks.rank < first + size:
            mine = SequenceGroup(ranks.rank - first, size, group)
    return mine
