"""The one thread in which vLLM's engine lives: requests go in while it steps, weights change between steps, and failures reach everyone.

Knows nothing of models or policies; `rlvr.engines.vllm_local` builds the engine and gives it in.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rlvr.engines.vllm_requests import adapter_name
from rlvr.errors import EngineFailed

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

T = TypeVar("T")


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
    answer: Future[Any] = field(default_factory=Future)
    name: str = ""


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
        self._adapters: list[Adapter] = []
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

    def take_adapter(self, adapter: Adapter) -> None:
        """Called in the thread: make vLLM know the adapters, and forget those that nobody samples with any more."""
        assert self._engine is not None, "vLLM runs"
        if not self._engine.add_lora(_lora_request(adapter)):
            raise EngineFailed(f"vLLM did not take the adapters of version {adapter.version} in {adapter.folder}")
        in_use = {request.adapter for request in (*self._running.values(), *self._held)}
        for older in [each for each in self._adapters if each not in in_use]:
            self._engine.remove_lora(_lora_id(older))
            self._adapters.remove(older)
        self._adapters.append(adapter)

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
            self._engine.engine_core.shutdown()

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
