"""Small Python functions from nothing: a tiny model writes them, real unit tests in real containers pay for them.

    rlvr train code_tiny_grpo               the whole run, some minutes on a CPU; needs Docker, no model and no data
    rlvr train code_tiny_grpo seed=1        another model, other problems

As `arithmetic_grpo`, with another task: specifications such as `largest of even: x times 3`. Every reward is a run of the program on
test cases in a sandbox container; the held-out specifications are only ever measured on.
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
    FieldMap,
    HeldOutConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    VerifierConfig,
)

NUM_VALIDATION, NUM_HELD_OUT = 256, 500
data = DataConfig(path=PREPARED_BY_RECIPE, plain_template="{question}\n", fields=FieldMap(answer=None, reference="reference"))

config = RunConfig(
    num_steps=120,
    model=ModelConfig(path=PREPARED_BY_RECIPE),
    algorithm=GrpoConfig(kl=KlConfig(coefficient=0.0)),
    data=data,
    held_out=HeldOutConfig(data=data, every=25),
    # Loops without end are rare and cost a worker the whole limit each: a short one is enough for functions of one line.
    verifier=VerifierConfig(name="code", options={"test_seconds": 1.0, "total_seconds": 3.0}),
    sampling=SamplingConfig(max_new_tokens=80),
    batch=BatchConfig(prompts_per_step=32, group_size=8, minibatches_per_step=2, tokens_per_microbatch=8192),
    optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=10, schedule="linear", min_learning_rate=3e-5),
    checkpoint=CheckpointConfig(every=50),
)


def main(config: RunConfig, *, resume: Path | None = None) -> None:
    """Prepare model and data, warm up, reinforce; a resumed run has all that behind it."""
    train_prepared(config, resume, task="code", prepare=prepare)


def prepare(config: RunConfig, folder: Path) -> RunConfig:
    """Write specifications with their tests and a warmed-up model into `folder`; return the configuration that uses them.

    Raises: ConfigError: the folder exists. TrainingStopped: the warm-up did not get far enough.
    """
    from recipes.arithmetic import build_model, build_tokenizer
    from recipes.code_tiny import specifications

    rows = {
        split: [
            {"question": each.text, "reference": {"tests": each.tests()}, "response": each.demonstration}
            for each in specifications(split, seed=config.seed)[:count]
        ]
        for split, count in (("train", None), ("validation", NUM_VALIDATION), ("held_out", NUM_HELD_OUT))
    }
    tokenizer = build_tokenizer()
    return prepare_from_nothing(config, folder, rows, build_model(tokenizer, seed=config.seed), tokenizer)


if __name__ == "__main__":
    rlvr.recipe.run(__file__)
