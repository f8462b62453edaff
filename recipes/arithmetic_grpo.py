"""Addition from nothing: a model is built, warmed up on worked examples, and learns the rest from being right or wrong.

    rlvr train arithmetic_grpo              the whole run, a few minutes on a laptop's CPU; nothing is downloaded
    rlvr train arithmetic_grpo seed=1       another model, other problems

The supervised warm-up stops once three tenths of the *validation* problems are solved; the held-out problems are only ever measured on.
"""

from __future__ import annotations

from pathlib import Path

import rlvr.recipe
from recipes.from_nothing import prepare_from_nothing
from recipes.preparation import train_prepared
from rlvr.algorithm_settings import KlConfig
from rlvr.algorithms import GrpoConfig
from rlvr.config import (
    PREPARED_BY_RECIPE,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    HeldOutConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    VerifierConfig,
)

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
    train_prepared(config, resume, task="arithmetic", prepare=prepare)


def prepare(config: RunConfig, folder: Path, *, digits: tuple[int, int] = (2, 3), num_train: int = NUM_TRAIN) -> RunConfig:
    """Write problems and a warmed-up model into `folder`; return the configuration that uses them.

    Raises: ConfigError: the folder exists. TrainingStopped: the warm-up did not get far enough.
    """
    from recipes.arithmetic import build_model, build_tokenizer, distinct_sums

    rows = {
        split: [
            {"question": p.question, "answer": p.answer, "response": p.demonstration}
            for p in distinct_sums(split, count, seed=config.seed, digits=digits)
        ]
        for split, count in (("train", num_train), ("validation", NUM_VALIDATION), ("held_out", NUM_HELD_OUT))
    }
    tokenizer = build_tokenizer()
    return prepare_from_nothing(config, folder, rows, build_model(tokenizer, seed=config.seed), tokenizer)


if __name__ == "__main__":
    rlvr.recipe.run(__file__)
