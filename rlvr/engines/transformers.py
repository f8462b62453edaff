"""The embedded engine: samples with the policy's own module, so there is nothing to synchronise, or with a copy of it.

Requests of one event-loop turn are decoded together on the compute thread; those that arrive meanwhile wait for the next batch. So a
batch is a function of who asked in which order, and a synchronous run is reproducible bit by bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlvr.attention import IMPLEMENTATION
from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig
from rlvr.engines.decoding import Decoder, Request
from rlvr.engines.fused import fused_network
from rlvr.engines.kv_cache import PrefillPlan
from rlvr.engines.networks import ModuleCopy, Network, PlannedNetwork
from rlvr.engines.protocol import EngineSetting, NamedTensors, check_request, decoding_dtype, stop_token_ids
from rlvr.engines.rows import CachedRows, PaddedRows, Rows
from rlvr.types import Completion, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GATHERING_TURNS = 3
"""Event-loop turns a batch stays open after its first request, so that tasks started together are decoded together."""


class TransformersEngine:
    """Samples with the policy's own module, or a copy. Not safe to share between event loops."""

    @classmethod
    async def open(cls, setting: EngineSetting) -> TransformersEngine:
        """See `EngineClass.open`."""
        return cls(
            setting.model,
            setting.tokenizer,
            compute=setting.compute,
            config=setting.config,
            compute_dtype=setting.compute_dtype,
            shares_weights=setting.shares_weights,
        )

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        compute: ComputeThread,
        config: EngineConfig | None = None,
        compute_dtype: torch.dtype = torch.float32,
        shares_weights: bool = True,
    ) -> None:
        """`compute_dtype`: the type of matrix products where `config.dtype` is "auto". `shares_weights`: `model` is the policy's."""
        self.shares_weights = shares_weights
        self._model = model
        self._tokenizer = tokenizer
        self._compute = compute
        self._config = config or EngineConfig()
        self._dtype = decoding_dtype(self._config, compute_dtype)
        self._version = 0
        self._stop_ids = stop_token_ids(model, tokenizer)
        self._network: Network | ModuleCopy | None = None
        self._fingerprint: tuple[tuple[int, int], ...] = ()
        self._queue: list[tuple[Request, asyncio.Future[list[Completion]]]] = []
        self._drain: asyncio.Task[None] | None = None

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`. Raises: ValueError: an empty prompt or a limit below 1."""
        check_request(token_ids, sampling)
        request = Request(tuple(token_ids), sampling)
        future: asyncio.Future[list[Completion]] = asyncio.get_running_loop().create_future()
        self._queue.append((request, future))
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_queue())
        try:
            return await future
        finally:
            # A caller that leaves early has its rows dropped at the next step; after a normal end nothing reads this.
            request.cancelled = True

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """See `Engine.logprobs`."""
        return await self._compute.run(self._logprobs, tuple(token_ids))

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        """Copy the tensors into the module; a tensor that already is the module's own costs nothing."""
        await self._compute.run(self._copy, named_tensors)
        self._version = version

    @torch.no_grad()
    def _copy(self, named_tensors: NamedTensors) -> None:
        own = dict(self._model.state_dict(keep_vars=True))
        for name, tensor in named_tensors:
            if own[name].data_ptr() != tensor.data_ptr():
                own[name].copy_(tensor)

    def replicas(self) -> Sequence[TransformersEngine]:
        return (self,)

    async def standby(self) -> None:
        """Drop the decoding copies of the weights; the cache lives only while a batch is decoded."""
        self._network = None

    async def close(self) -> None:
        """Cancel what is queued and wait for the batch being decoded to notice."""
        for request, future in self._queue:
            request.cancelled = True
            future.cancel()
        if self._drain is not None:
            self._drain.cancel()
            await asyncio.wait([self._drain])
        self._network = None

    async def _drain_queue(self) -> None:
        """Decode batch after batch until nobody waits."""
        batch: list[tuple[Request, asyncio.Future[list[Completion]]]] = []
        try:
            while True:
                for _ in range(GATHERING_TURNS):
                    await asyncio.sleep(0)
                if not self._queue:
                    return
                batch, self._queue = self._queue, []
                await self._decode_batch(batch)
        except BaseException as error:
            # Whatever ended the decoding, everyone who waits for it has to hear of it; nobody may hang.
            for request, future in [*batch, *self._queue]:
                request.cancelled = True
                if not future.done():
                    future.cancel() if isinstance(error, asyncio.CancelledError) else future.set_exception(error)
            self._queue = []
            if not isinstance(error, Exception):
                raise
        finally:
            self._drain = None

    async def _decode_batch(self, batch: list[tuple[Request, asyncio.Future[list[Completion]]]]) -> None:
        loop = asyncio.get_running_loop()
        futures = dict(batch)

        def deliver(requests: list[Request], version: int) -> None:
            results = [(futures[request], self._completions(request, version)) for request in requests]
            loop.call_soon_threadsafe(resolve, results)

        def resolve(results: list[tuple[asyncio.Future[list[Completion]], list[Completion]]]) -> None:
            for future, completions in results:
                if not future.done():
                    future.set_result(completions)

        await self._compute.run(self._decode, [request for request, _ in batch], deliver)

    @torch.no_grad()
    def _decode(self, requests: list[Request], deliver: Callable[[list[Request], int], None]) -> None:
        version = self._version
        network = self._ready()
        device = next(self._model.parameters()).device
        num_rows = min(self._config.max_batch_size, sum(request.sampling.num_samples for request in requests))
        rows: Rows
        if isinstance(network, ModuleCopy):
            rows = PaddedRows(network, device=device)
        else:
            rows = CachedRows(network, max_rows=num_rows, device=device)
        # Module by module: with gradient checkpointing the layers are in training mode and the model around them is not.
        training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        try:
            decoder = Decoder(rows, max_rows=num_rows, stop_ids=self._stop_ids, device=device)
            decoder.run(requests, lambda completed: deliver(completed, version))
        finally:
            for module in training:
                module.training = True

    def _completions(self, request: Request, version: int) -> list[Completion]:
        texts = self._tokenizer.batch_decode([list(sequence.token_ids) for sequence in request.sequences], skip_special_tokens=True)
        return [
            Completion(text, sequence.token_ids, sequence.logprobs, "stop" if sequence.stopped else "length", version, version)
            for text, sequence in zip(texts, request.sequences, strict=True)
        ]

    @torch.no_grad()
    def _logprobs(self, token_ids: tuple[int, ...]) -> list[float]:
        network = self._ready()
        tokens = torch.tensor([token_ids], device=next(self._model.parameters()).device)
        logits = _all_logits(network, tokens)
        logprobs = torch.log_softmax(logits[0, :-1], -1).gather(1, tokens[0, 1:, None])[:, 0]
        return [0.0, *logprobs.tolist()]

    def _ready(self) -> Network | ModuleCopy:
        """Return the network with the module's present weights. In-place changes move a parameter's version counter."""
        fingerprint = ((self._version, 0), *((p.data_ptr(), p._version) for p in self._model.parameters()))
        if self._network is None:
            self._network = self._build()
        elif fingerprint != self._fingerprint:
            self._network.refresh()
        self._fingerprint = fingerprint
        return self._network

    def _build(self) -> Network | ModuleCopy:
        if self._model.config._attn_implementation != IMPLEMENTATION:
            return ModuleCopy(self._model, self._dtype)
        return fused_network(self._model, self._dtype) or PlannedNetwork(self._model, self._dtype)


def _all_logits(network: Network | ModuleCopy, tokens: Int[Tensor, "1 T"]) -> Float[Tensor, "1 T V"]:
    if isinstance(network, ModuleCopy):
        return network.model(input_ids=tokens, use_cache=False).logits.float()
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    return network(tokens, positions, PrefillPlan(torch.zeros_like(tokens[:, 0])), last_only=False)
