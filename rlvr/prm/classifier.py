"""The process reward model itself: a language model with a head of two classes on every token, and what it says of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlvr.config import ModelConfig
from rlvr.errors import ConfigError
from rlvr.policy.loading import load_tokenizer
from rlvr.policy.seeded import seeded
from rlvr.prm.config import ClassifierConfig, InputConfig
from rlvr.prm.data import StepExample
from rlvr.seeding import derive_seed
from verifiers.errors import first_line
from verifiers.prm_input import FORMAT_FILE, PrmFormat, read_format, write_input

NUM_CLASSES = 2
RIGHT = 1
PARAGRAPH = "\n\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """An example as tokens: the places of its labelled steps' last tokens, and the labels."""

    token_ids: tuple[int, ...]
    places: tuple[int, ...]
    labels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Samples padded on the right. `rows` and `places` say where the labelled steps end, row by row and in order."""

    token_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    places: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model with its tokenizer and the format it reads; `right_label` of the format is the class whose probability is learned."""

    model: nn.Module
    tokenizer: Any
    form: PrmFormat

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def logits(self, batch: StepBatch) -> Tensor:
        """Return the two classes' logits at the labelled steps, [steps, 2], float32."""
        outputs = self.model(input_ids=batch.token_ids, attention_mask=batch.attention_mask, use_cache=False)
        return outputs.logits[batch.rows, batch.places].float()

    def loss_sum(self, batch: StepBatch) -> Tensor:
        """Return the sum over labelled steps of the cross-entropy against their labels; a share is a target between the classes."""
        logprobs = self.logits(batch).log_softmax(-1)
        right, wrong = logprobs[:, self.form.right_label], logprobs[:, 1 - self.form.right_label]
        return -(batch.labels * right + (1 - batch.labels) * wrong).sum()

    @torch.no_grad()
    def right_probabilities(self, batch: StepBatch) -> list[float]:
        """Return the probability that each labelled step is right."""
        return self.logits(batch).softmax(-1)[:, self.form.right_label].tolist()

    def export(self, folder: Path) -> None:
        """Write a `save_pretrained` folder with the tokenizer and `prm.json`."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.form.save(folder)


def load_classifier(config: ClassifierConfig, input_config: InputConfig, *, seed: int) -> Classifier:
    """Load a causal language model with a new head, drawn from `seed`, or a model for two classes of tokens as it is.

    A process reward model of ours keeps the format it was trained with. Dropout is off, weights are float32.

    Raises: ConfigError: there is no such model, it has another number of classes, or its format is not the one that is asked for.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification

    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("model.device=cuda, but torch finds no CUDA device: set model.device=cpu or install a CUDA build of torch")
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    folder = Path(config.path).expanduser()
    if config.path.startswith((".", "/", "~")) and not (folder / "config.json").is_file():
        raise ConfigError(f"model.path={config.path!r} is no folder with a model: give a save_pretrained folder or a Hugging Face name")
    try:
        described = AutoConfig.from_pretrained(config.path, **options)
        is_classifier = any("TokenClassification" in name for name in described.architectures or ())
        if is_classifier and described.num_labels != NUM_CLASSES:
            raise ConfigError(f"model.path={config.path!r} tells {described.num_labels} classes of tokens apart: two are needed")
        with seeded(derive_seed(seed, "process reward head"), device), _without_report():
            model, found = AutoModelForTokenClassification.from_pretrained(
                config.path, num_labels=NUM_CLASSES, dtype=torch.float32, output_loading_info=True, **options
            )
        body = [name for name in found["missing_keys"] if is_classifier or name.startswith(model.base_model_prefix + ".")]
        if body:
            raise ConfigError(f"model.path={config.path!r} lacks weights of its own: {', '.join(sorted(body)[:3])}")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.path={config.path!r} cannot be loaded as a classifier of tokens: {first_line(error)}") from error
    tokenizer = load_tokenizer(
        ModelConfig(path=config.path, revision=config.revision, tokenizer=config.tokenizer, trust_remote_code=config.trust_remote_code)
    )
    form = _format(folder / FORMAT_FILE, input_config, tokenizer)
    return Classifier(model.to(device).eval(), tokenizer, form)


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from warning that a new head is new; what else is missing is looked at by the caller."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _format(saved: Path, config: InputConfig, tokenizer: Any) -> PrmFormat:
    if saved.is_file():
        try:
            form = read_format(saved)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if config.separator not in (None, form.separator):
            raise ConfigError(f"input.separator={config.separator!r}, but {saved} was trained with {form.separator!r}: leave it out")
        return form
    template = config.template
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "plain"
    elif template == "chat" and not tokenizer.chat_template:
        raise ConfigError("input.template=chat, but the tokenizer has no chat template; set input.template=plain")
    return PrmFormat(config.separator or PARAGRAPH, RIGHT, template, config.plain_template)


def make_samples(
    examples: Sequence[StepExample], classifier: Classifier, max_tokens: int, *, every_token: bool = False
) -> tuple[list[Sample], int]:
    """Return the examples as tokens, each up to its last labelled step that fits, and how many lost steps or were dropped.

    With `every_token` all tokens of a step have its label, not only the last.

    Raises: ConfigError: the tokenizer cannot write the question or the separator.
    """
    samples, num_cut = [], 0
    for example in examples:
        try:
            written = write_input(example.messages, example.steps, classifier.tokenizer, classifier.form)
        except ValueError as error:
            raise ConfigError(f"input: {error}") from error
        labelled = [(place, label) for place, label in zip(written.step_places, example.labels, strict=True) if label is not None]
        fitting = [(place, label) for place, label in labelled if place < max_tokens]
        num_cut += len(fitting) < len(labelled)
        if fitting:
            if every_token:
                fitting = list(_on_every_token(fitting, written.step_places, written.first_step))
            places, labels = zip(*fitting, strict=True)
            samples.append(Sample(written.token_ids[: places[-1] + 1], places, labels))
    return samples, num_cut


def _on_every_token(labelled: Sequence[tuple[int, float]], step_places: Sequence[int], first: int) -> Iterator[tuple[int, float]]:
    """Spread the label of each step's last place over the step, which begins behind the step before it, the first one at `first`."""
    begins = dict(zip(step_places, [first, *(place + 1 for place in step_places)], strict=False))
    for end, label in labelled:
        for place in range(begins[end], end + 1):
            yield place, label


def make_batch(samples: Sequence[Sample], device: torch.device) -> StepBatch:
    """Pad samples on the right; under causal attention no token sees what is right of it."""
    longest = max(len(sample.token_ids) for sample in samples)
    token_ids = torch.tensor([[*sample.token_ids, *[0] * (longest - len(sample.token_ids))] for sample in samples], device=device)
    mask = torch.tensor([[1] * len(sample.token_ids) + [0] * (longest - len(sample.token_ids)) for sample in samples], device=device)
    rows = torch.tensor([row for row, sample in enumerate(samples) for _ in sample.places], device=device)
    places = torch.tensor([place for sample in samples for place in sample.places], device=device)
    labels = torch.tensor([label for sample in samples for label in sample.labels], device=device, dtype=torch.float32)
    return StepBatch(token_ids, mask, rows, places, labels)


def microbatches(samples: Sequence[Sample], tokens_per_microbatch: int) -> list[list[Sample]]:
    """Group samples of like length so that rows times the longest stay within the limit; one that is longer stands alone."""
    groups: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda each: len(each.token_ids)):
        if groups and (len(groups[-1]) + 1) * len(sample.token_ids) <= tokens_per_microbatch:
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups
