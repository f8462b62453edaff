"""Addition from nothing: a model is built, warmed up on worked examples, and learns the rest from being right or wrong.

    rlvr train arithmetic_grpo              the whole run, a few minutes on a laptop's CPU; nothing is downloaded
    rlvr train arithmetic_grpo seed=1       another model, other problems

The supervised warm-up stops once three tenths of the *validation* problems are solved; the held-out problems are only ever measured on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import rlvr.recipe
from rlvr.algorithms import GrpoConfig, KlConfig
from rlvr.config import (
    PREPARED_BY_RECIPE,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    EarlyStopConfig,
    HeldOutConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    SftConfig,
    VerifierConfig,
)
from rlvr.errors import ConfigError, TrainingStopped

NUM_TRAIN, NUM_VALIDATION, NUM_HELD_OUT = 20_000, 256, 500

config = RunConfig(
    num_steps=350,
    model=ModelConfig(path=PREPARED_BY_RECIPE),
    # One update a batch from rollouts of the current policy: nothing to hold it near, so no KL term and no reference model.
    algorithm=GrpoConfig(kl=KlConfig(coefficient=0.0)),
    data=DataConfig(path=PREPARED_BY_RECIPE, plain_template="{question}"),
    held_out=HeldOutConfig(data=DataConfig(path=PREPARED_BY_RECIPE, plain_template="{question}"), every=25),
    # The answer alone is not enough: once nearly all answers are right, a policy paid for no more drifts into not ending them.
    verifier=VerifierConfig(
        name="gated", options={"parts": [{"verifier": "exact_match", "options": {"extraction": "strict"}}, {"verifier": "format"}]}
    ),
    sampling=SamplingConfig(max_new_tokens=48),
    batch=BatchConfig(prompts_per_step=32, group_size=8, tokens_per_microbatch=8192),
    optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=10, schedule="linear", min_learning_rate=3e-5),
    checkpoint=CheckpointConfig(every=50),
)


def main(config: RunConfig, *, resume: Path | None = None) -> None:
    """Prepare model and data, warm up, reinforce; a resumed run has all that behind it."""
    import rlvr.run

    if resume is None:
        name = config.name or f"arithmetic-{time.strftime('%Y%m%d-%H%M%S')}"
        config = prepare(config.model_copy(update={"name": name}), Path(config.runs_folder) / f"{name}-preparation")
    print(rlvr.run.train(config, resume=resume).summary())


def prepare(config: RunConfig, folder: Path, *, digits: tuple[int, int] = (2, 3), num_train: int = NUM_TRAIN) -> RunConfig:
    """Write problems and a warmed-up model into `folder`; return the configuration that uses them.

    Raises: ConfigError: the folder exists. TrainingStopped: the warm-up did not get far enough.
    """
    from transformers.utils import logging

    from recipes.arithmetic import build_model, build_tokenizer, distinct_sums

    logging.disable_progress_bar()  # Its bars would break into the run's own display.
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"name={config.name}: {folder} exists already; choose another name or remove the folder") from error
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=config.seed).save_pretrained(folder / "untrained")
    tokenizer.save_pretrained(folder / "untrained")
    for split, count in (("train", num_train), ("validation", NUM_VALIDATION), ("held_out", NUM_HELD_OUT)):
        problems = distinct_sums(split, count, seed=config.seed, digits=digits)
        write_rows(folder / f"{split}.jsonl", [{"question": p.question, "answer": p.answer, "response": p.demonstration} for p in problems])

    def data(split: str) -> DataConfig:
        return config.data.model_copy(update={"path": str(folder / f"{split}.jsonl")})

    model = config.model.model_copy(update={"path": str(warm_up(config, folder, data("train"), data("validation")))})
    held_out = config.held_out.model_copy(update={"data": data("held_out")})
    return config.model_copy(update={"model": model, "data": data("train"), "held_out": held_out})


def warm_up(config: RunConfig, folder: Path, demonstrations: DataConfig, validation: DataConfig) -> Path:
    """Learn from demonstrations until three tenths of the validation problems are solved; return the model's folder.

    Stopped much earlier, reinforcement finds too little to reinforce and gets stuck; much later, there is nothing left to learn.
    """
    import rlvr.run_sft

    enough = 0.3
    settings = SftConfig(
        name="warmup",
        runs_folder=str(folder),
        seed=config.seed,
        num_steps=1000,
        num_threads=config.num_threads,
        model=config.model.model_copy(update={"path": str(folder / "untrained")}),
        data=demonstrations,
        samples_per_step=64,
        tokens_per_microbatch=config.batch.tokens_per_microbatch,
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=10),
        early_stop=EarlyStopConfig(data=validation, verifier=config.verifier, sampling=config.sampling, accuracy=enough, every=10),
        engine=config.engine,
        deterministic=config.deterministic,
    )
    result = rlvr.run_sft.sft(settings)
    if result.validation is None or result.validation.score < enough:
        raise TrainingStopped(f"the warm-up did not solve {enough:.0%} of the validation problems within {settings.num_steps} steps")
    return result.export


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    rlvr.recipe.run(__file__)
