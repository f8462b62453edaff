"""Any number of vLLM servers as one engine: least-loaded routing, health, retries, and weights brought to each of them.

A server that dies or hangs costs only the requests it held: they are asked of another. One that comes back is brought to the present
weights before it serves. Knows vLLM by its HTTP interface alone, except for the GPU transports, which are vLLM's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import torch

from rlvr.config import ServersConfig
from rlvr.engines.protocol import EngineSetting, NamedTensors, check_request, stop_token_ids
from rlvr.engines.vllm_http import Progress, ServerError, VllmServer
from rlvr.engines.vllm_requests import model_shape, sampling_parameters
from rlvr.engines.weight_folder import WeightFolder
from rlvr.errors import ConfigError, EngineFailed, WeightSyncFailed
from rlvr.types import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
MAX_ATTEMPTS = 5
"""How many servers a request is asked of before its error is the run's."""


class VllmServerEngine:
    """Samples from the servers named in `engine.servers.urls`. Not safe to share between event loops."""

    shares_weights = False

    @classmethod
    async def open(cls, setting: EngineSetting) -> VllmServerEngine:
        """See `EngineClass.open`. Raises: EngineFailed: no server answered in time. ConfigError: one of them cannot be used."""
        config = setting.config.servers
        if len(set(config.urls)) < len(config.urls) or not config.urls:
            raise ConfigError(f"engine.servers.urls={config.urls} must name each server once, and at least one")
        if setting.sync.transport != "file":
            from rlvr.engines.vllm_gpu_transfer import check_transport

            check_transport(setting.sync.transport)
        engine = cls(
            config,
            setting.tokenizer,
            stop_token_ids(setting.model, setting.tokenizer),
            weights=WeightFolder(Path(setting.sync.folder) if setting.sync.folder else setting.run_folder / "weights"),
            transport=setting.sync.transport,
            in_flight=setting.sync.in_flight,
            sync_timeout_seconds=setting.sync.timeout_seconds,
            shape=model_shape(setting.model.config.get_text_config()) if setting.sync.transport == "file" else None,
            takes_adapters=setting.sends_adapters and setting.sync.transport == "file",
            tell=setting.tell,
        )
        try:
            await engine._start(setting)
        except BaseException:
            await engine.close()
            raise
        return engine

    def __init__(
        self,
        config: ServersConfig,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: frozenset[int],
        *,
        weights: WeightFolder,
        transport: str,
        in_flight: str,
        sync_timeout_seconds: float,
        shape: dict[str, int | str] | None,
        takes_adapters: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._weights = weights
        self._transport = transport
        self._in_flight = in_flight
        self._sync_timeout_seconds = sync_timeout_seconds
        # No connection is used twice: after an error a server closes its end, and the next request would be the one to find out.
        self._client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0))
        self._servers = [VllmServer(url, self._client, self._decode) for url in config.urls]
        self._shape = shape
        self.takes_adapters = takes_adapters
        self._tell = tell
        self._waits = False
        self._adapters: list[tuple[int, Path]] = []
        self._sampling_with: Counter[int | None] = Counter()
        self._version = 0
        self._path: Path | None = None
        self._syncing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._watch: asyncio.Task[None] | None = None
        self._replicas: dict[tuple[str, int], OneServer] = {}

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`. Raises: EngineFailed: no server is left, or several failed at this request."""
        check_request(token_ids, sampling)
        parameters = sampling_parameters(sampling, self._stop_ids)
        failures: list[str] = []
        for _ in range(MAX_ATTEMPTS):
            async with self._taken(sampling.num_samples) as server:
                try:
                    return await self._ask(server, token_ids, parameters)
                except ServerError as error:
                    failures.append(str(error))
                    if not error.refused:
                        self._lost(server, str(error))
                    else:
                        raise ValueError(str(error)) from error
        raise EngineFailed(f"a request failed on {MAX_ATTEMPTS} servers in turn: {'; '.join(failures)}")

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """See `Engine.logprobs`."""
        async with self._taken(1) as server:
            return await server.logprobs(token_ids)

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """See `Engine.load_weights`. A server that cannot take the weights is left out until it can.

        Raises: WeightSyncFailed: no server took them.
        """
        async with self._syncing:
            tensors = {name: tensor.detach() for name, tensor in named_tensors}
            if self._transport == "file":
                self._path = await asyncio.to_thread(self._weights.write, tensors, version)
            self._version = version
            await self._bring_all(f"the weights of version {version}", lambda server: self._send(server, tensors))
        if not self._serving():
            await self._wait_for_server()

    async def load_adapter(self, folder: Path, version: int) -> None:
        """See `TakesAdapters.load_adapter`. A server that cannot take them is left out until it can.

        Raises: WeightSyncFailed: no server took them.
        """
        async with self._syncing:
            # The folder is copied: a server that comes back takes them later, and completions in flight need the ones before.
            path = await asyncio.to_thread(self._weights.keep_adapter, folder, version)
            await self._bring_all(f"the adapters of version {version}", lambda server: self._send_adapter(server, path, version))
            self._adapters.append((version, path))
            await self._forget_adapters()
        if not self._serving():
            await self._wait_for_server()

    async def _forget_adapters(self) -> None:
        """Take back the adapters that nobody samples with any more; the present ones stay."""
        for version, path in [each for each in self._adapters[:-1] if self._sampling_with[each[0]] == 0]:
            self._adapters.remove((version, path))
            for server in self._serving():
                await server.unload_adapter(version, self._config.health_timeout_seconds)
            await asyncio.to_thread(self._weights.drop_adapter, path)

    async def _send_adapter(self, server: VllmServer, path: Path, version: int) -> None:
        await server.unload_adapter(version, self._config.health_timeout_seconds)  # Of a run before this one.
        await server.load_adapter(str(path), version, self._sync_timeout_seconds)

    def replicas(self) -> Sequence[OneServer]:
        """Each server that serves at present; one that went and came back is another replica."""
        return [self._replicas.setdefault((server.url, server.times_lost), OneServer(self, server)) for server in self._serving()]

    async def standby(self) -> None:
        """The servers' memory is their own."""

    async def close(self) -> None:
        """Stop asking; the servers go on running."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._client.aclose()
        await asyncio.to_thread(self._weights.remove)

    async def _start(self, setting: EngineSetting) -> None:
        """Wait for the servers, as long as a recovery may take; those that come later join later."""
        deadline = asyncio.get_running_loop().time() + self._config.recovery_timeout_seconds
        told = False
        while True:
            async with asyncio.TaskGroup() as tasks:
                for server in self._servers:
                    tasks.create_task(self._first_look(server))
            waiting = [server for server in self._servers if not server.serves]
            if not waiting or (len(waiting) < len(self._servers) and asyncio.get_running_loop().time() > deadline):
                break
            if asyncio.get_running_loop().time() > deadline:
                raise EngineFailed(self._nobody_there())
            if not told:
                told = True
                self._tell(f"waiting for {', '.join(server.url for server in waiting)}, up to {self._config.recovery_timeout_seconds:g} s")
            await asyncio.sleep(min(1.0, self._config.health_every_seconds))
        for server in self._serving():
            await self._check(server, setting)
        self._watch = asyncio.create_task(self._watch_servers(), name="server health")

    async def _first_look(self, server: VllmServer) -> None:
        if not server.serves and await server.is_healthy(self._config.health_timeout_seconds):
            server.serves = True

    async def _check(self, server: VllmServer, setting: EngineSetting) -> None:
        """Refuse a server that cannot do what a run needs, before anything is trained."""
        try:
            longest = await server.max_model_len(self._config.health_timeout_seconds)
            await server.get_ready(self._sync_timeout_seconds, shape=self._shape)
        except ServerError as error:
            raise ConfigError(f"{error}. Start the servers with `rlvr serve`, which sets what training needs") from error
        if longest < setting.max_sequence_tokens:
            raise ConfigError(
                f"{server.url} takes {longest} tokens at most, and prompts and completions may be {setting.max_sequence_tokens} together "
                "(data.max_prompt_tokens + sampling.max_new_tokens): start it with a larger --max-model-len"
            )

    async def _ask(self, server: VllmServer, token_ids: Sequence[int], parameters: dict[str, Any]) -> list[Completion]:
        adapter = self._adapters[-1][0] if self._adapters else None
        self._sampling_with[adapter] += 1
        try:
            seconds = self._config.request_timeout_seconds
            return await unless_lost(server, server.generate(token_ids, parameters, timeout=seconds, adapter=adapter))
        finally:
            self._sampling_with[adapter] -= 1

    @asynccontextmanager
    async def _taken(self, load: int) -> AsyncIterator[VllmServer]:
        """The server with the least load, for the time of the block."""
        server = await self._least_loaded()
        server.load += load
        try:
            yield server
        finally:
            server.load -= load

    async def _least_loaded(self) -> VllmServer:
        if self._watch is not None and self._watch.done():
            self._watch.result()  # Without its health checks a server that hangs would not be found: let its error out.
        if not self._serving():
            await self._wait_for_server()
        return min(self._serving(), key=lambda server: server.load)

    def _serving(self) -> list[VllmServer]:
        return [server for server in self._servers if server.serves]

    async def _wait_for_server(self) -> None:
        if not self._waits:  # Said once, not by each of the requests that wait.
            self._waits = True
            self._tell(f"no server serves; waiting for one, up to {self._config.recovery_timeout_seconds:g} s")
        try:
            async with asyncio.timeout(self._config.recovery_timeout_seconds), self._changed:
                await self._changed.wait_for(self._serving)
        except TimeoutError as error:
            raise EngineFailed(self._nobody_there()) from error

    def _nobody_there(self) -> str:
        told = "; ".join(f"{server.url} {server.fault or 'does not answer'}" for server in self._servers)
        return (
            f"no vLLM server has served for engine.servers.recovery_timeout_seconds={self._config.recovery_timeout_seconds:g}: {told}. "
            "Start them with `rlvr serve`"
        )

    def _lost(self, server: VllmServer, fault: str) -> None:
        """Leave a server out; whoever waits for it hears of it at once."""
        if server.serves:
            server.serves = False
            server.fault = fault.removeprefix(f"{server.url} ")
            server.times_lost += 1
            self._tell(f"server {server.url} is left out: it {server.fault}")
            server.lost.set()

    async def _bring_all(self, what: str, send: Callable[[VllmServer], Coroutine[Any, Any, None]]) -> None:
        """Send something to all that serve; who does not take it in time is left out.

        Raises: WeightSyncFailed: nobody took it.
        """
        present = self._serving()
        async with asyncio.TaskGroup() as tasks:
            for server in present:
                tasks.create_task(self._bring(server, what, send(server)))
        if present and not any(server.serves for server in present):
            raise WeightSyncFailed(f"no server took {what}: {'; '.join(f'{server.url} {server.fault}' for server in present)}")

    async def _bring(self, server: VllmServer, what: str, sending: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._sync_timeout_seconds):
                await unless_lost(server, sending)
        except ServerError as error:
            self._lost(server, f"did not take {what}: {error}")
        except TimeoutError:
            self._lost(server, f"did not take {what} within {self._sync_timeout_seconds:g} s")

    async def _send(self, server: VllmServer, tensors: dict[str, torch.Tensor]) -> None:
        async with server.paused(self._in_flight):
            if self._transport == "file":
                await server.update_weights({"path": str(self._path)}, version=self._version)
            else:
                from rlvr.engines.vllm_gpu_transfer import send

                await asyncio.to_thread(send, self._transport, server.url, tensors, str(self._version))

    async def _watch_servers(self) -> None:
        while True:
            await asyncio.sleep(self._config.health_every_seconds)
            async with asyncio.TaskGroup() as tasks:
                for server in self._servers:
                    tasks.create_task(self._look_after(server))

    async def _look_after(self, server: VllmServer) -> None:
        healthy = await server.is_healthy(self._config.health_timeout_seconds)
        if server.serves and not healthy:
            self._lost(server, f"did not answer a health check within {self._config.health_timeout_seconds:g} s")
        elif server.serves and await self._is_stalled(server):
            self._lost(server, f"owes {server.load} completions and has written nothing for {self._config.stall_timeout_seconds:g} s")
        elif healthy and not server.serves and self._transport == "file":
            await self._take_back(server)

    async def _is_stalled(self, server: VllmServer) -> bool:
        """Whether it has stood still for too long with completions under way; a frontend answers health checks for an engine that hangs."""
        now = asyncio.get_running_loop().time()
        with suppress(ServerError):
            tokens = await server.tokens_written(self._config.health_timeout_seconds)
            if tokens != server.progress.tokens or server.load == 0 or self._syncing.locked():
                server.progress = Progress(tokens, now)
        return server.load > 0 and now - server.progress.moved > self._config.stall_timeout_seconds

    async def _take_back(self, server: VllmServer) -> None:
        """Bring a server that answers again to the present weights; only then does it serve."""
        async with self._syncing:
            try:
                async with asyncio.timeout(self._sync_timeout_seconds):
                    await self._renew(server)
            except (ServerError, TimeoutError) as error:
                fault = f"cannot be brought to the present weights: {error or f'not within {self._sync_timeout_seconds:g} s'}"
                if fault != server.fault:  # Said once, though it is tried again and again.
                    server.fault = fault
                    self._tell(f"server {server.url} {fault}")
                return
            server.serves = True
            server.fault = ""
            server.lost = asyncio.Event()
            server.progress = Progress(moved=asyncio.get_running_loop().time())
            self._waits = False
            self._tell(f"server {server.url} serves again, with the weights of version {self._present_version}")
        async with self._changed:
            self._changed.notify_all()

    async def _renew(self, server: VllmServer) -> None:
        """Give a server everything that one which serves has. Raises: ServerError: it does not take it."""
        await server.get_ready(self._sync_timeout_seconds, shape=self._shape)
        if self._adapters:
            version, path = self._adapters[-1]
            await self._send_adapter(server, path, version)
        if self._path is not None:
            async with server.paused("abort"):
                await server.update_weights({"path": str(self._path)}, version=self._version)

    @property
    def _present_version(self) -> int:
        return self._adapters[-1][0] if self._adapters else self._version

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


async def unless_lost(server: VllmServer, asking: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer, but no longer than the server is known to be there.

    Raises: ServerError: it was found dead or hanging meanwhile, or the asking failed.
    """
    answer = asyncio.create_task(asking)
    lost = asyncio.create_task(server.lost.wait())
    try:
        await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ServerError(f"{server.url} {server.fault}")
        return answer.result()
    finally:
        answer.cancel()
        lost.cancel()


class OneServer:
    """One of the engine's servers, asked by itself: for the check of its weights."""

    def __init__(self, engine: VllmServerEngine, server: VllmServer) -> None:
        self._engine = engine
        self._server = server

    def __str__(self) -> str:
        return self._server.url

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`. Raises: EngineFailed: this server failed; it is left out."""
        try:
            return await self._engine._ask(self._server, token_ids, sampling_parameters(sampling, self._engine._stop_ids))
        except ServerError as error:
            self._engine._lost(self._server, str(error))
            raise EngineFailed(str(error)) from error
