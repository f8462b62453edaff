"""Continuous batching: waiting completions take the rows of finished ones, and finished rows stop costing anything.

Owns who decodes when; `rows` computes, `picking` draws. Everything here is a function of the requests and their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from rlvr.engines.picking import Picker, row_keys, uniforms
from rlvr.engines.rows import Rows
from rlvr.types import Sampling

NOISE_BLOCK = 32
"""Steps whose random numbers are drawn in one go."""
COMPACT_SHARE = 1 / 8
"""Finished rows are removed, and waiting ones let in, when they are this share of all rows; see docs/decisions/0001."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one row wrote, the stop token included."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


@dataclass(slots=True, eq=False)
class Request:
    """One prompt to complete `sampling.num_samples` times. Set `cancelled` from any thread to have its rows dropped."""

    token_ids: tuple[int, ...]
    sampling: Sampling
    cancelled: bool = False
    sequences: list[Written | None] = field(default_factory=list)
    num_pending: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    request: Request
    index: int
    key: int


class Decoder:
    """Decodes requests to their end, `max_rows` rows at once."""

    def __init__(self, rows: Rows, *, max_rows: int, stop_ids: frozenset[int], device: torch.device) -> None:
        self._rows = rows
        self._max_rows = max_rows
        self._device = device
        self._stop_ids = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
        self._waiting: deque[_Row] = deque()
        self._live: list[_Row] = []
        self._requests: list[Request] = []

    def run(self, requests: Iterable[Request], on_done: Callable[[list[Request]], None]) -> None:
        """Fill in each request's sequences and pass it to `on_done` once its last row has ended; cancelled ones never."""
        for request in requests:
            request.sequences = [None] * request.sampling.num_samples
            request.num_pending = request.sampling.num_samples
            self._requests.append(request)
            for index, key in enumerate(row_keys(request.sampling)):
                self._waiting.append(_Row(request, index, key))
        self._reset()
        while self._live or self._waiting:
            logits = self._rows.step(self._tokens) if self._live else None
            if self._waiting and (not self._live or self._rows.can_refill) and len(self._live) < self._max_rows:
                fresh = self._admit()
                if fresh is not None:
                    logits = fresh if logits is None else torch.cat((logits, fresh))
            if not self._live:
                break
            self._advance(logits)
            finished = len(self._live) - int(self._active.sum())
            if finished >= max(1, COMPACT_SHARE * len(self._live)) or any(r.cancelled for r in self._requests):
                self._remove_finished(on_done)

    def _reset(self) -> None:
        empty = torch.zeros(0, dtype=torch.long, device=self._device)
        self._tokens, self._keys, self._counts, self._limits = empty, empty, empty, empty
        self._active = empty.bool()
        self._written = torch.zeros(0, 64, dtype=torch.long, device=self._device)
        self._logprobs = torch.zeros(0, 64, device=self._device)

    def _admit(self) -> Tensor | None:
        """Let waiting rows join, neighbours with the same prompt sharing one computation; return their logits."""
        prompts: list[tuple[int, ...]] = []
        copies: list[int] = []
        joined: list[_Row] = []
        while self._waiting and len(self._live) + len(joined) < self._max_rows:
            row = self._waiting.popleft()
            if row.request.cancelled:
                continue
            if prompts and prompts[-1] == row.request.token_ids:
                copies[-1] += 1
            else:
                prompts.append(row.request.token_ids)
                copies.append(1)
            joined.append(row)
        if not joined:
            return None
        self._live += joined
        self._keys = torch.cat((self._keys, self._column([row.key for row in joined])))
        self._limits = torch.cat((self._limits, self._column([row.request.sampling.max_new_tokens for row in joined])))
        self._counts = torch.cat((self._counts, self._column([0] * len(joined))))
        self._active = torch.cat((self._active, self._column([1] * len(joined)).bool()))
        self._written = torch.cat((self._written, self._written.new_zeros(len(joined), self._written.shape[1])))
        self._logprobs = torch.cat((self._logprobs, self._logprobs.new_zeros(len(joined), self._logprobs.shape[1])))
        self._arrange()
        return self._rows.admit(prompts, copies)

    def _column(self, values: list[int]) -> Int[Tensor, " N"]:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    def _arrange(self) -> None:
        """Rebuild what depends on which rows live."""
        self._picker = Picker.of([row.request.sampling for row in self._live], self._device)
        self._slots = torch.arange(len(self._live), device=self._device)
        self._room = self._written.shape[1] - int(self._counts.max()) if self._live else 0
        self._draw_noise()

    def _draw_noise(self) -> None:
        """Draw the noise of the next steps at once: rows that live count on by one a step."""
        steps = torch.arange(NOISE_BLOCK, device=self._device)
        self._noise = uniforms(self._keys[:, None], self._counts[:, None] + steps)
        self._num_drawn = 0

    def _advance(self, logits: Tensor) -> None:
        """Draw one token for every row and note which rows it ends. Rows already ended draw too; nobody reads it."""
        if self._room == 0:
            self._written = torch.cat((self._written, torch.zeros_like(self._written)), 1)
            self._logprobs = torch.cat((self._logprobs, torch.zeros_like(self._logprobs)), 1)
            self._room = self._written.shape[1] - int(self._counts.max())
        if self._num_drawn == NOISE_BLOCK:
            self._draw_noise()
        self._tokens, logprobs = self._picker.pick(logits, self._noise[:, self._num_drawn])
        self._num_drawn += 1
        self._written[self._slots, self._counts] = self._tokens
        self._logprobs[self._slots, self._counts] = logprobs
        self._counts += self._active
        self._room -= 1
        self._active &= (self._counts < self._limits) & (self._tokens[:, None] != self._stop_ids).all(1)

    def _remove_finished(self, on_done: Callable[[list[Request]], None]) -> None:
        """Hand over what finished rows wrote, fill their places with the last living rows, and forget cancelled requests."""
        active = [alive and not row.request.cancelled for alive, row in zip(self._active.tolist(), self._live, strict=True)]
        done = [slot for slot, alive in enumerate(active) if not alive]
        for slot, sequence in zip(done, self._read(done), strict=True):
            request = self._live[slot].request
            request.sequences[self._live[slot].index] = sequence
            request.num_pending -= 1
        completed = [request for request in self._requests if request.num_pending == 0 and not request.cancelled]
        if completed:
            on_done(completed)
        self._requests = [request for request in self._requests if request.num_pending and not request.cancelled]
        num_rows = len(active) - len(done)
        target = [slot for slot in done if slot < num_rows]
        source = [slot for slot in range(num_rows, len(active)) if active[slot]]
        for new, old in zip(target, source, strict=True):
            self._live[new] = self._live[old]
        del self._live[num_rows:]
        into, out_of = self._column(target), self._column(source)
        for name in ("_tokens", "_keys", "_counts", "_limits", "_active", "_written", "_logprobs"):
            values = getattr(self, name)
            values[into] = values[out_of]
            setattr(self, name, values[:num_rows])
        self._rows.compact(out_of, into, num_rows)
        self._arrange()

    def _read(self, slots: list[int]) -> Iterable[Written]:
        which = self._column(slots)
        counts = self._counts[which].tolist()
        width = max(counts, default=0)
        tokens = self._written[which, :width].tolist()
        logprobs = self._logprobs[which, :width].tolist()
        stops = set(self._stop_ids.tolist())
        for count, row_tokens, row_logprobs in zip(counts, tokens, logprobs, strict=True):
            token_ids = tuple(row_tokens[:count])
            yield Written(token_ids, tuple(row_logprobs[:count]), bool(token_ids) and token_ids[-1] in stops)
