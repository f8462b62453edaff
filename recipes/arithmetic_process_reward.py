"""Addition from nothing with a process reward model: made by the recipe too, it tells the policy which of its columns are wrong.

    rlvr train arithmetic_process_reward            the whole run on a laptop's CPU; nothing is downloaded
    rlvr train arithmetic_process_reward seed=1     other models, other problems

As `arithmetic_grpo`, and between warm-up and reinforcement: the warmed-up model solves training problems, the rules of addition label every
step of what it wrote, and a copy of it learns to tell right steps from wrong ones.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import recipes.arithmetic_grpo
import rlvr.recipe
from recipes.preparation import judging_with, train_prepared
from rlvr.algorithm_settings import KlConfig, ProcessConfig
from rlvr.algorithms import GrpoConfig
from rlvr.config import PREPARED_BY_RECIPE, OptimizerConfig, RunConfig, VerifierConfig

NUM_SOLVED = 6_000
"""Training problems that are solved, twice each, for the process reward model."""
NUM_PRM_STEPS = 2700
SEPARATOR = " "

outcome = recipes.arithmetic_grpo.config.verifier
process = VerifierConfig(name="process_reward", options={"model": PREPARED_BY_RECIPE, "separator": SEPARATOR, "batch_size": 64})

config = recipes.arithmetic_grpo.config.model_copy(
    update={
        # The process reward says where a sum went wrong; whether it did is for the outcome to say. With process_min_form and equal weights
        # one of three seeds learned to write what pleases the judge for every question, faster than it learned to add (docs/recipes.md).
        "algorithm": GrpoConfig(
            advantage="process_return_to_go", process=ProcessConfig(weight=0.5, outcome_weight=1.0), kl=KlConfig(coefficient=0.0)
        ),
        "verifier": VerifierConfig(
            name="with_steps",
            options={"parts": [{"verifier": each.name, "options": each.options} for each in (outcome, process)]},
        ),
    }
)


def main(config: RunConfig, *, resume: Path | None = None) -> None:
    """Prepare model, data and process reward model, reinforce; a resumed run has all that behind it."""
    train_prepared(config, resume, task="arithmetic-process", prepare=prepare)


def prepare(config: RunConfig, folder: Path) -> RunConfig:
    """Prepare as `arithmetic_grpo` does, then train the process reward model; return the configuration that uses them.

    Raises: ConfigError: the folder exists. TrainingStopped: the warm-up did not get far enough.
    """
    ready = recipes.arithmetic_grpo.prepare(config.model_copy(update={"verifier": outcome}), folder)
    return ready.model_copy(update={"verifier": judging_with(config.verifier, process_reward_model(ready, folder))})


def process_reward_model(ready: RunConfig, folder: Path, *, num_solved: int = NUM_SOLVED, num_steps: int = NUM_PRM_STEPS) -> Path:
    """Train a copy of the warmed-up model to judge steps, on solutions of its own; return the folder of the result."""
    from rlvr.prm.config import ClassifierConfig, InputConfig, PrmConfig, StepDataConfig
    from rlvr.prm.training import train_prm

    settings = PrmConfig(
        name="prm",
        runs_folder=str(folder),
        seed=ready.seed,
        num_threads=ready.num_threads,
        model=ClassifierConfig(path=ready.model.path),
        data=StepDataConfig(path=str(_labelled_solutions(ready, folder, num_solved))),
        input=InputConfig(separator=SEPARATOR, plain_template="{question}"),
        num_steps=num_steps,
        learn_on="every_token",
        # At 1e-3, the rate of the warm-up, it learns to judge far more slowly.
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=20, schedule="cosine"),
        tracking=ready.tracking,
        deterministic=ready.deterministic,
    )
    return train_prm(settings).export


def _labelled_solutions(ready: RunConfig, folder: Path, num_solved: int) -> Path:
    """Let the warmed-up model solve training problems, and label each step by what addition is; with mistakes that it does not make yet."""
    from recipes.arithmetic import with_other_digits
    from rlvr.eval_config import AnswersConfig, PromptConfig, SampleConfig
    from rlvr.run_sample import sample

    solutions, labelled = folder / "solutions.jsonl", folder / "steps.jsonl"
    drawing = SampleConfig(
        path=ready.data.path,
        limit=num_solved,
        seed=ready.seed,
        num_threads=ready.num_threads,
        model=ready.model,
        prompt=PromptConfig(plain_template="{question}"),
        sampling=AnswersConfig(num_samples=2, max_new_tokens=ready.sampling.max_new_tokens),
        cache=False,
    )
    sample(drawing, solutions)
    generator = random.Random(ready.seed)
    with solutions.open() as lines, labelled.open("w") as rows:
        for row in map(json.loads, lines):
            question, response = row["messages"][-1]["content"], row["response"]
            if row["finish_reason"] != "stop" or not any(map(str.isdigit, response)):  # What was cut off ends in half a step.
                continue
            # A judge that has only seen the mistakes that this policy makes now is soon led to others: so it sees more of any kind.
            misread = with_other_digits(question, generator, chance=0.3)  # Every second column of three no longer is of this question.
            slipped = with_other_digits(response, generator, chance=0.1)
            for asked, written in ((question, response), (misread, response), (question, slipped)):
                rows.write(json.dumps(_labelled(asked, written)) + "\n")
    return labelled


def _labelled(question: str, response: str) -> dict[str, Any]:
    from recipes.arithmetic import Sum, steps_are_right
    from verifiers.steps import split_steps, steps_of

    left, _, right = question.removesuffix("=").partition("+")
    steps = steps_of(response, split_steps(response, SEPARATOR))
    return {"question": question, "steps": steps, "labels": [int(each) for each in steps_are_right(Sum(int(left), int(right)), steps)]}


if __name__ == "__main__":
    rlvr.recipe.run(__file__)
