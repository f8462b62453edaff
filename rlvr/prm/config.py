"""Every setting of `rlvr prm train`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlvr.config import CheckpointConfig, DataConfig, OptimizerConfig, TrackingConfig
from rlvr.eval_config import AnsweringConfig
from rlvr.settings import Settings

StepFormat = Literal["auto", "steps", "trl", "prm800k", "math_shepherd"]


class ClassifierConfig(Settings):
    """The model that learns to judge: a causal language model, which gets a new head, or a process reward model to go on with."""

    path: str
    """A Hugging Face name or a local `save_pretrained` folder."""
    revision: str | None = None
    tokenizer: str | None = None
    """Defaults to `path`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False


class StepDataConfig(Settings):
    """Where solutions with labelled steps come from."""

    path: str
    """A Hugging Face dataset name, or a local .jsonl, .json or .parquet file."""
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    format: StepFormat = "auto"
    """steps: rlvr's own. trl: prompt, completions, labels. prm800k, math_shepherd: as published. auto: by the fields of each row."""
    labels: str = "labels"
    """The field of the own format that holds the labels; soft_labels of `rlvr prm label` are shares."""
    right_ratings: list[int] = Field(default_factory=lambda: [0, 1])
    """PRM800K: the ratings that count as right; the paper (arXiv:2305.20050) takes neutral steps for right."""
    limit: int | None = Field(None, ge=1)
    """Only the first rows."""
    on_bad_row: Literal["error", "skip"] = "error"

    @property
    def rows(self) -> DataConfig:
        """How the rows are read."""
        return DataConfig(path=self.path, subset=self.subset, split=self.split, revision=self.revision)


class InputConfig(Settings):
    """How a solution is written for the model; saved beside it, so that scoring writes it the same way."""

    separator: str | None = Field(None, min_length=1)
    """Follows each step; the step is judged at its last token. None: an empty line, or what a process reward model was trained with."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """The question: by the tokenizer's chat template or `plain_template`. auto: chat where the tokenizer has a template."""
    plain_template: str = "{question}\n"
    max_tokens: int = Field(2048, ge=1)
    """Steps of longer solutions that end behind this are not learned from."""

    @model_validator(mode="after")
    def _check_template(self) -> InputConfig:
        if "{question}" not in self.plain_template:
            raise ValueError(f"plain_template={self.plain_template!r} must contain {{question}}")
        return self


class PrmConfig(Settings):
    """One training of a process reward model."""

    name: str | None = None
    runs_folder: str = "runs"
    seed: int = 0
    num_steps: int | None = Field(None, ge=1)
    """None: once through the data."""
    num_threads: int | None = Field(None, ge=1)
    model: ClassifierConfig
    data: StepDataConfig
    held_out: StepDataConfig | None = None
    """Solutions to judge the model by; None: those to a share of the questions of `data`."""
    held_out_share: float = Field(0.05, ge=0, lt=1)
    """0: none."""
    evaluate_every: int = Field(0, ge=0)
    """Steps between looks at the held-out solutions; 0: only at the end."""
    input: InputConfig = InputConfig()
    learn_on: Literal["step_ends", "every_token"] = "step_ends"
    """every_token: all tokens of a labelled step learn its label, the value of what is written so far, as verifiers do in arXiv:2110.14168,
    section 4.2; steps are judged at their ends all the same. For small models and few labels."""
    samples_per_step: int = Field(64, ge=1)
    tokens_per_microbatch: int = Field(8192, ge=1)
    """Padding included; a longer solution has a micro-batch for itself."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-5)
    checkpoint: CheckpointConfig = CheckpointConfig(best_by="held_out/auc")
    tracking: TrackingConfig = TrackingConfig()
    deterministic: bool = True


class LabelConfig(AnsweringConfig):
    """One `rlvr prm label`. `sampling.num_samples` solutions are drawn to each problem, at temperature 1 unless set."""

    path: str
    """The problems: a file or a Hugging Face dataset."""
    solutions: str | None = None
    """A .jsonl of solutions to label instead, with `id` of the problem and `response`, as `rlvr sample` writes."""
    num_rollouts: int = Field(8, ge=1)
    """Continuations of each beginning of a solution."""
    separator: str | None = Field(None, min_length=1)
    """What ends a step; None: blank lines."""
    problems_at_once: int = Field(32, ge=1)
    """A kill loses those of them that are not written down."""

    @model_validator(mode="after")
    def _check_draws(self) -> LabelConfig:
        if self.verifier is None:
            raise ValueError("labels come from the outcomes of continuations: give --verifier NAME")
        if self.sampling.temperature == 0:
            raise ValueError("at temperature 0 all continuations would be the same: raise sampling.temperature")
        return self
