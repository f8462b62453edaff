"""Whether engine and policy say the same of the same tokens, and if not, why; for `rlvr doctor --mismatch` and the start of a run.

The engine writes completions with the run's own sampling and tells their log-probs. The policy's own are computed, and, where the two
differ, what they would be under each known cause: no temperature, a truncated vocabulary, another arithmetic, weights that did not arrive.
The cause under which the difference goes away is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from rlvr.config import RunConfig
from rlvr.engines.picking import Picker
from rlvr.episodes import sampling_of
from rlvr.errors import EngineFailed
from rlvr.policy.packed_policy import PackedPolicy
from rlvr.rollouts.samples import written_sample
from rlvr.run_data import load_run_data
from rlvr.session import Session, open_session_of, sync_tolerance
from rlvr.types import Completion, Sampling
from rlvr.weight_sync import Difference

NUM_PROMPTS = 8
NUM_SAMPLES = 4
NEW_TOKENS = 64
EXPLAINED = 0.1
"""A cause explains a difference that it leaves less than this share of."""
ROUNDING_SPAN = 3.0
"""How many times the policy's own change from one arithmetic to the other a difference may be, to be put down to it."""
NOISE = 0.02
"""Relative size of the change by which the doctor moves the weights, to see whether the engine follows."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What the probe found. `cause` is None where the two agree or nothing known explains it; `sentence` says it to a person."""

    difference: Difference
    agrees: bool
    cause: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt and one completion of it by the engine."""

    prompt: tuple[int, ...]
    completion: Completion


REMEDIES = {
    "temperature": (
        "the engine tells log-probs before temperature: start vLLM with --logprobs-mode processed_logprobs (`rlvr serve` does), "
        "or set sampling.temperature=1"
    ),
    "top-p / top-k": (
        "the engine samples from a truncated vocabulary that the policy's log-probs do not know: set sampling.top_p=1 and "
        "sampling.top_k=0, and --generation-config vllm where a server takes defaults from the model's generation_config.json"
    ),
    "dtype": (
        "engine and policy compute in different types: set engine.dtype and model.dtype to the same, or expect this much; the off-policy "
        "correction accounts for it"
    ),
    "stale weights": (
        "the engine samples from the weights before the last sync: they did not arrive, or its prefix cache outlived them; look at the "
        "engine's log, and at weight_sync"
    ),
    "stale tied weights": (
        "the engine's output projection is the old one although its embedding is new: it lost the tie in the reload; send the whole state "
        "dict, tied names included, as weight_sync does, and restart the engine"
    ),
    "tokenisation": ("the engine's text is not what its tokens spell in the policy's tokenizer: give both the same model.tokenizer"),
}


async def probe_mismatch(
    session: Session,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    tolerance: float,
    before: Mapping[str, Tensor] | None = None,
) -> Mismatch:
    """Let the engine write and compare. `before`: the policy's weights before the last sync, to tell stale ones.

    Raises: EngineFailed: the engine cannot be asked.
    """
    asked = replace(sampling, max_new_tokens=min(NEW_TOKENS, sampling.max_new_tokens), num_samples=NUM_SAMPLES, seed=0)
    fitting = [tuple(prompt) for prompt in prompts if len(prompt) + asked.max_new_tokens <= session.max_sequence_tokens][:NUM_PROMPTS]
    if not fitting:
        raise EngineFailed(f"no prompt leaves room for {asked.max_new_tokens} tokens in {session.max_sequence_tokens}")
    async with asyncio.TaskGroup() as tasks:
        groups = [tasks.create_task(session.engine.generate(prompt, asked)) for prompt in fitting]
    written = [Written(prompt, c) for prompt, group in zip(fitting, groups, strict=True) for c in group.result()]
    return await session.compute.run(_compare, session, written, asked, tolerance, before)


def _compare(
    session: Session, written: Sequence[Written], sampling: Sampling, tolerance: float, before: Mapping[str, Tensor] | None
) -> Mismatch:
    told = [logprob for each in written for logprob in each.completion.logprobs]
    rows = session.policy.logprobs([written_sample(each.prompt, each.completion) for each in written])
    own = [value for each, row in zip(written, rows, strict=True) for value in row[len(each.prompt) :]]
    difference = Difference.between(told, own)
    measured = f"{difference.mean:.2g} nats on average, {difference.maximum:.2g} at most, on {difference.num_tokens} sampled tokens"
    tokenizer = session.loaded.tokenizer
    if any(each.completion.text != tokenizer.decode(list(each.completion.token_ids), skip_special_tokens=True) for each in written):
        return Mismatch(difference, False, "tokenisation", f"{measured}; {REMEDIES['tokenisation']}")
    if difference.mean <= tolerance:
        return Mismatch(difference, True, None, f"engine and policy agree: {measured} (tolerance {tolerance:g})")
    # Weights that are divided among processes cannot be tried with other rules here; `rlvr doctor --mismatch` can, on one process.
    cause = _cause(session.policy, written, told, difference.mean, sampling, before) if session.policy.is_whole else None
    remedy = (
        REMEDIES[cause] if cause else "no known cause explains it: compare the engine's model, revision and quantisation with the policy's"
    )
    return Mismatch(difference, False, cause, f"engine and policy differ by {measured} (tolerance {tolerance:g}): {remedy}")


def _cause(
    policy: PackedPolicy,
    written: Sequence[Written],
    told: Sequence[float],
    found: float,
    sampling: Sampling,
    before: Mapping[str, Tensor] | None,
) -> str | None:
    """Return the cause under which the least of the difference is left, if that is little enough, or that roundings differ."""
    model = policy.model
    other_type = torch.bfloat16 if policy.loaded.compute_dtype == torch.float32 else torch.float32
    left: dict[str, float] = {}

    def attempt(cause: str, rule: Sampling, dtype: torch.dtype) -> None:
        values = [value for each in written for value in _logprobs(model, each, rule, dtype)]
        mean = Difference.between(told, values).mean
        left[cause] = min(mean, left.get(cause, mean))

    own_type = policy.loaded.compute_dtype
    plain = replace(sampling, top_p=1.0, top_k=0)
    if sampling.temperature != 1:
        attempt("temperature", replace(plain, temperature=1.0), own_type)
    for rule in _truncations(model, sampling):
        attempt("top-p / top-k", rule, own_type)
    if before is not None:
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        with _weights_of(model, before):
            attempt("stale weights", plain, own_type)
        if tied:
            with _old_head(model, before):
                attempt("stale tied weights", plain, own_type)
    cause = min(left, key=left.__getitem__, default=None)
    if cause is not None and left[cause] <= EXPLAINED * found:
        return cause
    # No arithmetic repeats another's rounding: it is explained where the policy's own rounding is of the same size.
    own, rounded = ([v for each in written for v in _logprobs(model, each, plain, dtype)] for dtype in (own_type, other_type))
    return "dtype" if found <= ROUNDING_SPAN * Difference.between(own, rounded).mean else None


def _truncations(model: nn.Module, sampling: Sampling) -> list[Sampling]:
    """The run's own truncation and the one that a server may take from the model's generation configuration."""
    defaults = model.generation_config
    configured = replace(sampling, top_p=defaults.top_p or 1.0, top_k=defaults.top_k or 0)
    both = replace(configured, temperature=defaults.temperature or sampling.temperature)
    return [rule for rule in (sampling, configured, both) if rule.top_p < 1 or rule.top_k > 0]


@torch.no_grad()
def _logprobs(model: nn.Module, written: Written, sampling: Sampling, dtype: torch.dtype) -> list[float]:
    """Return the log-probs of a completion's tokens under a sampling rule, by a plain forward in the given type."""
    device = next(model.parameters()).device
    tokens = torch.tensor([written.prompt + written.completion.token_ids], device=device)
    implementation = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(input_ids=tokens, use_cache=False).logits[0, len(written.prompt) - 1 : -1].float()
    finally:
        model.config._attn_implementation = implementation
    logits = logits / (sampling.temperature or 1.0)
    if sampling.top_p < 1 or sampling.top_k > 0:
        logits = Picker.of([replace(sampling, temperature=1.0)] * len(logits), device).truncate(logits)
    chosen = tokens[0, len(written.prompt) :, None]
    return torch.log_softmax(logits, -1).gather(1, chosen)[:, 0].tolist()


@contextmanager
def _weights_of(model: nn.Module, weights: Mapping[str, Tensor]):
    """The model with other weights, for the time of the block."""
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    try:
        yield
    finally:
        model.load_state_dict(own)


@contextmanager
def _old_head(model: nn.Module, before: Mapping[str, Tensor]):
    """The model with an output projection of its own that kept its old weights."""
    head = model.get_output_embeddings()
    tied = head.weight
    [old] = [tensor for name, tensor in before.items() if name.endswith("embed_tokens.weight") or tensor.shape == tied.shape][:1]
    head.weight = nn.Parameter(old.clone(), requires_grad=False)
    try:
        yield
    finally:
        head.weight = tied


def diagnose(config: RunConfig, tell: Callable[[str], None]) -> bool:
    """`rlvr doctor --mismatch`: build the run's model and engine, compare them, move the weights, and compare again.

    Returns whether they agree. Raises: as the start of a run does.
    """
    return asyncio.run(_diagnose(config, tell))


async def _diagnose(config: RunConfig, tell: Callable[[str], None]) -> bool:
    with TemporaryDirectory() as folder:
        async with open_session_of(config, run_folder=Path(folder), num_updates=1, tell=tell) as session:
            data = load_run_data(config, session.loaded.tokenizer)
            prompts = [data.prompt_at(index).token_ids for index in range(NUM_PROMPTS)]
            sampling = sampling_of(config)
            tolerance = sync_tolerance(session, config)
            tell(f"engine '{config.engine.name}', policy {config.model.path}")
            await session.bring_engine(1)
            first = await probe_mismatch(session, prompts, sampling, tolerance=tolerance)
            tell(f"with the weights as they are: {first.sentence}")
            before = {name: tensor.clone() for name, tensor in session.policy.model.state_dict().items()}
            await session.compute.run(_move, session.policy.model)
            await session.bring_engine(2)
            second = await probe_mismatch(session, prompts, sampling, tolerance=tolerance, before=before)
            tell(f"after moving the weights and sending them: {second.sentence}")
            return first.agrees and second.agrees


@torch.no_grad()
def _move(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.add_(noise * parameter.std(correction=0) * NOISE)
