"""All data of a run, ready to be used: training prompts in order, held-out prompts, demonstrations; with notes on what was left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlvr.config import DataConfig, RunConfig
from rlvr.data.chat import SupervisedSample, render_demonstrations
from rlvr.data.problems import load_demonstrations, load_problems
from rlvr.data.prompt_stream import PromptStream, build_prompts, shuffled_index
from rlvr.data.split import split_held_out
from rlvr.seeding import derive_seed
from rlvr.types import Prompt, TrainSample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class RunData:
    """`prompt_at` and `demonstration_at` are endless shuffled orders; `notes` tell a person what was read and what was dropped."""

    prompt_at: Callable[[int], Prompt]
    held_out: tuple[Prompt, ...]
    notes: tuple[str, ...]
    demonstration_at: Callable[[int], TrainSample] | None = None


def load_run_data(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> RunData:
    """Read, split and render what the configuration names.

    Raises: DataError, ConfigError: a source, a row or a field is wrong, or nothing is left to train on.
    """
    problems = load_problems(config.data)
    split = split_held_out(problems.problems, config.held_out, config.seed)
    training = build_prompts(split.train, tokenizer, config.data)
    notes = [f"{config.data.path}: {len(training.prompts)} training prompts{_dropped(problems.num_skipped, training.num_too_long)}"]
    if split.num_leaking:
        notes.append(f"{split.num_leaking} problems left out of training because they ask a held-out question")
    held_out: tuple[Prompt, ...] = ()
    if split.held_out:
        source = config.held_out.data or config.data
        prompts = build_prompts(split.held_out, tokenizer, source)
        held_out = tuple(prompts.prompts)
        notes.append(f"{source.path}: {len(held_out)} held-out prompts{_dropped(0, prompts.num_too_long)}")
    demonstration_at = None
    if config.supervised_mix is not None:
        demonstration_at, note = load_demonstration_samples(config.supervised_mix.data, tokenizer, config.seed)
        notes.append(note)
    return RunData(PromptStream(training.prompts, config.seed).prompt_at, held_out, tuple(notes), demonstration_at)


def load_demonstration_samples(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[Callable[[int], TrainSample], str]:
    """Return an endless shuffled order of demonstrations, and a note on where they come from."""
    loaded = load_demonstrations(config)
    rendered = render_demonstrations(loaded.demonstrations, tokenizer, config)
    samples = [_train_sample(index, sample) for index, sample in enumerate(rendered.samples)]
    order = derive_seed(seed, "demonstrations")
    note = f"{config.path}: {len(samples)} demonstrations{_dropped(loaded.num_skipped, rendered.num_too_long)}"
    return lambda index: samples[shuffled_index(index, len(samples), order)], note


def _train_sample(index: int, sample: SupervisedSample) -> TrainSample:
    blank = (0.0,) * len(sample.token_ids)
    return TrainSample(sample.token_ids, sample.loss_mask, behavior_logprobs=blank, advantages=blank, policy_version=0, group_index=index)


def _dropped(num_skipped: int, num_too_long: int) -> str:
    parts = [
        f"{num_skipped} malformed rows skipped" if num_skipped else "",
        f"{num_too_long} prompts over max_prompt_tokens dropped" if num_too_long else "",
    ]
    text = ", ".join(part for part in parts if part)
    return f" ({text})" if text else ""
