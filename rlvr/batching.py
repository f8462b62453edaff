"""Packs train samples into mini-batches and micro-batches; the only place where targets are shifted against their sources.

No padding is ever computed on: the token axis of a micro-batch holds each token once, and the tokens of a prompt shared by samples of one
group once for all of them. Tokens behind the last one that predicts a scored token are left out, since nothing depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from rlvr.batch import MicroBatch, MiniBatch, PackedLayout, Totals
from rlvr.types import TrainSample


def pack(
    samples: Sequence[TrainSample],
    *,
    totals: Totals,
    tokens_per_microbatch: int,
    share_prompts: bool = True,
    min_microbatches: int = 1,
    device: torch.device | str = "cpu",
) -> MiniBatch:
    """Lay out a mini-batch in micro-batches within the token budget, at least `min_microbatches` of them where there are samples enough.

    `totals` speak of the whole mini-batch: of all processes, and of the sequences left out of `samples`. Samples with no scored token take
    no compute. A sample longer than the budget is a micro-batch of its own. The result depends only on the arguments.
    """
    plan = plan_microbatches(
        samples, tokens_per_microbatch=tokens_per_microbatch, share_prompts=share_prompts, min_microbatches=min_microbatches
    )
    return MiniBatch(
        tuple(build_microbatch([samples[i] for i in rows], share_prompts=share_prompts, device=device) for rows in plan), totals
    )


def split_evenly(samples: Sequence[TrainSample], num_parts: int) -> list[list[TrainSample]]:
    """Split samples, in their order, into parts of equal numbers of sequences."""
    bounds = [len(samples) * i // num_parts for i in range(num_parts + 1)]
    return [list(samples[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]


def totals_of(samples: Sequence[TrainSample], *, max_new_tokens: int) -> Totals:
    """Count the scored tokens and the sequences of one process's samples."""
    return Totals(tokens=sum(map(num_scored, samples)), sequences=len(samples), max_new_tokens=max_new_tokens)


def num_scored(sample: TrainSample) -> int:
    """Count the tokens that a loss may look at; the first token of a sequence has no prediction and never counts."""
    return sum(sample.loss_mask[1:])


def plan_microbatches(
    samples: Sequence[TrainSample], *, tokens_per_microbatch: int, share_prompts: bool, min_microbatches: int = 1
) -> list[list[int]]:
    """Choose which samples go together: whole prompt groups, like lengths next to each other, micro-batches of about equal size.

    Returns the sample indices of each micro-batch. Samples with no scored token are in none.
    """
    units = prompt_units(samples, max_tokens=tokens_per_microbatch, share_prompts=share_prompts)
    units.sort(key=lambda unit: (-unit.longest, unit.rows[0]))
    total = sum(unit.tokens for unit in units)
    num_microbatches = max(1, min_microbatches, -(-total // tokens_per_microbatch))
    target = total / num_microbatches
    plan: list[list[int]] = []
    filled = 0
    for unit in units:
        if not plan or filled + unit.tokens > tokens_per_microbatch or filled >= target:
            plan.append([])
            filled = 0
        plan[-1].extend(unit.rows)
        filled += unit.tokens
    return plan


@dataclass(frozen=True, slots=True)
class PromptUnit:
    """Samples that stay together because they share a prompt: their indices, the tokens they add to the packed axis, the length of the
    longest, and `keys`, the sum over their tokens of the keys that each attends to."""

    rows: list[int]
    tokens: int
    longest: int
    keys: int


def prompt_units(samples: Sequence[TrainSample], *, max_tokens: int, share_prompts: bool) -> list[PromptUnit]:
    """Gather samples with a common prompt, splitting a family that exceeds the budget, the prompt then being stored once a part.

    Samples with no scored token are in none.
    """
    families: dict[tuple[int, tuple[int, ...]] | int, list[int]] = {}
    prompt_lengths: list[int] = []
    for i, sample in enumerate(samples):
        scored = num_scored(sample) > 0
        prompt_lengths.append(_prompt_length(sample) if share_prompts and scored else 0)
        if scored:
            key = (sample.group_index, sample.token_ids[: prompt_lengths[i]]) if share_prompts and prompt_lengths[i] else ~i
            families.setdefault(key, []).append(i)
    units: list[PromptUnit] = []
    for rows in families.values():
        prompt = prompt_lengths[rows[0]]
        part: list[int] = []
        filled = prompt
        for row in rows:
            own = _computed_length(samples[row]) - prompt
            if part and filled + own > max_tokens:
                units.append(_unit(samples, part, prompt, filled))
                part, filled = [], prompt
            part.append(row)
            filled += own
        units.append(_unit(samples, part, prompt, filled))
    return units


def _unit(samples: Sequence[TrainSample], rows: list[int], prompt: int, tokens: int) -> PromptUnit:
    lengths = [_computed_length(samples[row]) for row in rows]
    # Token t of a sequence sees t + 1 keys; those of a shared prompt are computed once.
    shared = prompt * (prompt + 1) // 2
    return PromptUnit(rows, tokens, max(lengths), shared + sum(length * (length + 1) // 2 - shared for length in lengths))


def _prompt_length(sample: TrainSample) -> int:
    """Length of the leading part up to the first scored token; the sample must have one."""
    return sample.loss_mask.index(True, 1)


def _computed_length(sample: TrainSample) -> int:
    """Number of tokens that must run through the model: all up to the one predicting the last scored token."""
    mask = sample.loss_mask
    last = len(mask) - 1
    while last > 0 and not mask[last]:
        last -= 1
    return last


def build_microbatch(samples: Sequence[TrainSample], *, share_prompts: bool = True, device: torch.device | str = "cpu") -> MicroBatch:
    """Pack samples, row b of the result being sample b; every sample must have a scored token."""
    tokens: list[int] = []
    positions: list[int] = []
    queries: list[range] = []
    keys: list[list[int]] = []
    packed_at: list[list[int]] = []
    stored_prompts: dict[tuple[int, tuple[int, ...]], range] = {}
    shared = _shared_prompts(samples) if share_prompts else set()

    def store(ids: tuple[int, ...], start: int) -> range:
        at = range(len(tokens), len(tokens) + len(ids))
        tokens.extend(ids)
        positions.extend(range(start, start + len(ids)))
        return at

    for sample in samples:
        length = _computed_length(sample)
        prompt = _prompt_length(sample)
        family = (sample.group_index, sample.token_ids[:prompt])
        if family not in shared:
            own = store(sample.token_ids[:length], 0)
            before: range = range(0)
        else:
            if family not in stored_prompts:
                stored_prompts[family] = store(family[1], 0)
                queries.append(stored_prompts[family])
                keys.append(list(stored_prompts[family]))
            before = stored_prompts[family]
            own = store(sample.token_ids[prompt:length], prompt)
        packed_at.append([*before, *own])
        if own:
            queries.append(own)
            keys.append(packed_at[-1])
    layout = _layout(queries, keys, device)
    return _with_targets(samples, packed_at, layout, tokens, positions, device)


def _shared_prompts(samples: Sequence[TrainSample]) -> set[tuple[int, tuple[int, ...]]]:
    seen: set[tuple[int, tuple[int, ...]]] = set()
    shared = set()
    for sample in samples:
        family = (sample.group_index, sample.token_ids[: _prompt_length(sample)])
        if family in seen:
            shared.add(family)
        seen.add(family)
    return shared


def _layout(queries: list[range], keys: list[list[int]], device: torch.device | str) -> PackedLayout:
    query_index, query_mask = _rectangle(queries)
    key_index, key_mask = _rectangle(keys)
    starts = torch.tensor([len(k) - len(q) for q, k in zip(queries, keys, strict=True)], dtype=torch.long)
    return PackedLayout(query_index.to(device), query_mask.to(device), key_index.to(device), key_mask.to(device), starts.to(device))


def _rectangle(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    index = torch.zeros(mask.shape, dtype=torch.long)
    index[mask] = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
    return index, mask


def _with_targets(
    samples: Sequence[TrainSample],
    packed_at: list[list[int]],
    layout: PackedLayout,
    tokens: list[int],
    positions: list[int],
    device: torch.device | str,
) -> MicroBatch:
    """Add targets and per-token values: the one place that pairs token t with the hidden state of token t - 1."""
    lengths = torch.tensor([len(sample.token_ids) for sample in samples])
    present = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]

    def rectangle(values: chain, dtype: torch.dtype) -> Tensor:
        out = torch.zeros(present.shape, dtype=dtype)
        out[present] = torch.tensor(list(values), dtype=dtype)
        return out

    mask = rectangle(chain.from_iterable(s.loss_mask for s in samples), torch.bool)
    mask[:, 0] = False
    ids = rectangle(chain.from_iterable(s.token_ids for s in samples), torch.long)
    # Tokens behind the last scored one are not packed; they predict nothing, so their place is never read.
    unpacked = ((0,) * (len(s.token_ids) - len(at)) for s, at in zip(samples, packed_at, strict=True))
    places = rectangle(chain.from_iterable(chain(at, rest) for at, rest in zip(packed_at, unpacked, strict=True)), torch.long)
    rows, cols = mask.nonzero(as_tuple=True)
    return MicroBatch(
        token_ids=torch.tensor(tokens, dtype=torch.long, device=device),
        position_ids=torch.tensor(positions, dtype=torch.long, device=device),
        layout=layout,
        source_index=places[rows, cols - 1].to(device),
        target_ids=ids[rows, cols].to(device),
        target_row=rows.to(device),
        target_col=cols.to(device),
        mask=mask.to(device),
        advantages=rectangle(chain.from_iterable(s.advantages for s in samples), torch.float32).to(device),
        behavior_logprobs=rectangle(chain.from_iterable(s.behavior_logprobs for s in samples), torch.float32).to(device),
    )
