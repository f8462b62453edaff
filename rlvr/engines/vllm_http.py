"""One vLLM server over HTTP: its token endpoint, health, pause and resume, and weight updates. Every call has a deadline.

The endpoints are vLLM 0.32's own: `/inference/v1/generate` (`--enable-scale-out`) and the reinforcement-learning ones
(`VLLM_SERVER_DEV_MODE=1`); `rlvr serve` switches both on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from rlvr.engines.vllm_requests import PROMPT_LOGPROBS, adapter_name, completion_of
from rlvr.types import Completion

TOKENS_WRITTEN = "vllm:generation_tokens_total"
PAUSE_MODES = {"finish": "wait", "continue": "keep", "abort": "abort"}


class ServerError(Exception):
    """A server did not do what it was asked. `refused`: it is well, and the request is at fault."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(slots=True)
class Progress:
    """How far a server had written when it was last seen to write something; `moved` is a time of the event loop, seconds."""

    tokens: float = -1.0
    moved: float = 0.0


class VllmServer:
    """A server and what is known of it. `load` is the number of completions asked of it and not yet there."""

    def __init__(self, url: str, client: httpx.AsyncClient, decode: Callable[[Sequence[int]], str]) -> None:
        self.url = url.rstrip("/")
        self.serves = False
        self.fault = ""
        self.load = 0
        self.times_lost = 0
        self.progress = Progress()
        self.lost = asyncio.Event()
        self._client = client
        self._decode = decode

    async def generate(
        self, token_ids: Sequence[int], parameters: dict[str, Any], *, timeout: float, adapter: int | None = None
    ) -> list[Completion]:
        """Ask for completions of one prompt, in the order of their index; `adapter`: the version of the adapters to sample with."""
        body = {"token_ids": list(token_ids), "sampling_params": parameters}
        if adapter is not None:
            body["model"] = adapter_name(adapter)
        answer = await self._call("POST", "/inference/v1/generate", timeout, json=body)
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            completions = [self._completion(choice, adapter) for choice in choices]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ServerError(f"{self.url} answered a request with something else than completions ({error!r})") from error
        if len(completions) != parameters.get("n", 1) or any(completion.finish_reason == "aborted" for completion in completions):
            raise ServerError(f"{self.url} gave up a request unfinished")
        return completions

    def _completion(self, choice: dict[str, Any], adapter: int | None) -> Completion:
        return completion_of(
            choice["token_ids"],
            [entry["logprob"] for entry in choice["logprobs"]["content"]],
            choice["finish_reason"],
            [span["version"] for span in choice["weight_versions"]] if adapter is None else [str(adapter)],
            decode=self._decode,
        )

    async def logprobs(self, token_ids: Sequence[int], timeout: float = 60.0) -> list[float]:
        """Log-probs of given tokens at temperature 1; entry 0 is 0."""
        body = {"token_ids": list(token_ids), "sampling_params": PROMPT_LOGPROBS}
        answer = await self._call("POST", "/inference/v1/generate", timeout, json=body)
        told = answer["prompt_logprobs"][1:]
        return [0.0, *(entry[str(token)]["logprob"] for entry, token in zip(told, token_ids[1:], strict=True))]

    async def is_healthy(self, timeout: float) -> bool:
        try:
            await self._call("GET", "/health", timeout, parse=False)
        except ServerError:
            return False
        return True

    async def tokens_written(self, timeout: float) -> float:
        """Return how many tokens it has written since it was started; a number that stands still tells of an engine that hangs."""
        text = await self._call("GET", "/metrics", timeout, parse=False)
        counts = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(TOKENS_WRITTEN)]
        try:
            return sum(map(float, counts))
        except ValueError as error:
            raise ServerError(f"{self.url} tells its metrics in an unknown form ({error})") from error

    async def max_model_len(self, timeout: float) -> int:
        """The longest sequence the server takes, tokens."""
        _, longest = await self._served(timeout)
        return longest

    async def _model(self, timeout: float) -> str:
        name, _ = await self._served(timeout)
        return name

    async def _served(self, timeout: float) -> tuple[str, int]:
        """The model's name or folder, and the longest sequence, tokens."""
        answer = await self._call("GET", "/v1/models", timeout)
        try:
            return str(answer["data"][0]["root"]), int(answer["data"][0]["max_model_len"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"{self.url} does not say which model it serves ({error!r}): is it a vLLM server?") from error

    async def get_ready(self, timeout: float, *, shape: dict[str, int | str] | None) -> None:
        """Leave no pause behind that a trainer before this one began, and make sure that it can take weights of this shape.

        `shape` None: the GPU transports agree on their connection when they first send.
        """
        await self._call("POST", "/resume", timeout, parse=False)
        if shape is None:
            return
        try:
            await self._call("POST", "/init_weight_transfer_engine", timeout, json={"init_info": {"shape": shape}})
        except ServerError as error:
            raise ServerError(
                f"{self.url} serves {await self._model(timeout)!r} and does not take weights of the policy's shape "
                f"({', '.join(f'{name} {value}' for name, value in shape.items())}); its log says what differs ({error})"
            ) from error

    @asynccontextmanager
    async def paused(self, in_flight: str) -> AsyncIterator[None]:
        """No sampling inside the block; what is being written finishes before it, continues after it, or is given up.

        A block that fails leaves the server paused: its weights are in doubt, and `get_ready` resumes it when it is taken back.
        """
        await self._call("POST", "/pause", None, params={"mode": PAUSE_MODES[in_flight], "clear_cache": "true"})
        yield
        await self._call("POST", "/resume", None)

    async def update_weights(self, update_info: dict[str, Any], *, version: int) -> None:
        """Take over the weights; the caller holds the deadline, and has paused the server."""
        try:
            await self._call("POST", "/start_weight_update", None)
        except ServerError:  # An update that was cut half-way is still open: end it, and begin anew.
            await self._call("POST", "/finish_weight_update", None)
            await self._call("POST", "/start_weight_update", None)
        await self._call("POST", "/update_weights", None, json={"update_info": update_info})
        await self._call("POST", "/finish_weight_update", None, json={"weight_version": str(version)})

    async def load_adapter(self, folder: str, version: int, timeout: float) -> None:
        """Take over adapters beside those of completions that are being written; the caller takes back older ones."""
        body = {"lora_name": adapter_name(version), "lora_path": folder}
        await self._call("POST", "/v1/load_lora_adapter", timeout, parse=False, json=body)

    async def unload_adapter(self, version: int, timeout: float) -> None:
        """Forget adapters; of a server that does not know them there is nothing to forget."""
        with suppress(ServerError):
            await self._call("POST", "/v1/unload_lora_adapter", timeout, parse=False, json={"lora_name": adapter_name(version)})

    async def _call(self, method: str, path: str, timeout: float | None, *, parse: bool = True, **options: Any) -> Any:
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.request(method, self.url + path, **options)
        except TimeoutError as error:
            raise ServerError(f"{self.url} did not answer {path} within {timeout:g} s") from error
        except httpx.HTTPError as error:
            raise ServerError(f"{self.url} cannot be reached at {path} ({type(error).__name__}: {error})") from error
        if response.status_code != 200:
            # A request that vLLM refuses is a 400; anything else is the server's trouble, or a server that cannot do this at all.
            raise ServerError(
                f"{self.url} answered {path} with status {response.status_code}: {response.text[:500]}", refused=response.status_code == 400
            )
        if not parse:
            return response.text
        try:
            return response.json()
        except ValueError as error:
            raise ServerError(f"{self.url} answered {path} with something else than JSON: {response.text[:200]!r}") from error
