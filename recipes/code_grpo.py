"""Python functions from a sentence (MBPP) with GRPO on a small instruction-tuned model, paid by unit tests in Docker sandboxes.

    rlvr train code_grpo                                           Qwen2.5-Coder-0.5B-Instruct and MBPP from the Hugging Face hub
    rlvr train code_grpo model.path=… data.path=train.jsonl held_out.data.path=test.jsonl      local files instead
    rlvr train code_grpo --dry-run                                 checks everything, starts nothing

The prompt shows the first test, which tells the function's name and form; all tests decide. Meant for one GPU of 24 GiB or more and a
Docker engine; on a CPU it runs, slowly. What was and was not measured stands in docs/recipes.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import rlvr.recipe
from recipes.preparation import make_folder, train_prepared
from rlvr.algorithm_settings import KlConfig
from rlvr.algorithms import GrpoConfig
from rlvr.config import (
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

data = DataConfig(
    path="google-research-datasets/mbpp",
    subset="sanitized",
    split="train",
    fields=FieldMap(question="prompt", answer=None, tests="test_list", solution="code"),
    instruction="Write the function in one ```python block.",
    max_prompt_tokens=512,
)

config = RunConfig(
    num_steps=200,
    model=ModelConfig(path="Qwen/Qwen2.5-Coder-0.5B-Instruct", gradient_checkpointing=True),
    algorithm=GrpoConfig(kl=KlConfig(coefficient=0.0)),
    data=data,
    held_out=HeldOutConfig(data=data.model_copy(update={"split": "test"}), every=50),
    # A group waits in turn for the containers: its deadline is for that, too.
    verifier=VerifierConfig(name="code", options={"test_seconds": 4.0, "total_seconds": 12.0}, timeout_seconds=600.0),
    sampling=SamplingConfig(max_new_tokens=512),
    batch=BatchConfig(prompts_per_step=32, group_size=8, tokens_per_microbatch=8192),
    optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=10),
    checkpoint=CheckpointConfig(every=50),
)


def main(config: RunConfig, *, resume: Path | None = None) -> None:
    """Put the first test into each prompt, then train; a resumed run has its prompts already."""
    train_prepared(config, resume, task="code", prepare=with_first_test)


def with_first_test(config: RunConfig, folder: Path) -> RunConfig:
    """Write the problems with their first test in the prompt into `folder`; return the configuration that uses them.

    Raises: ConfigError: the folder exists. DataError: the data cannot be read.
    """
    make_folder(config, folder)
    prepared = {"train": config.data, "held_out": config.held_out.data}
    for part, source in prepared.items():
        if source is not None:
            prepared[part] = write_problems(source, folder / f"{part}.jsonl")
    held_out = config.held_out.model_copy(update={"data": prepared["held_out"]})
    return config.model_copy(update={"data": prepared["train"], "held_out": held_out})


def write_problems(source: DataConfig, path: Path) -> DataConfig:
    """Write the problems of a source, each with its first test in the prompt; return where they are."""
    from rlvr.data.problems import load_problems
    from verifiers.code_reference import Asserts, read_tests

    with path.open("w", encoding="utf-8") as file:
        for problem in load_problems(source).problems:
            tests, question = read_tests(problem), problem.messages[-1]["content"]
            if isinstance(tests, Asserts):
                question = f"{question}\n\nFor example, this must hold:\n\n{tests.asserts[0]}"
            file.write(json.dumps({"id": problem.id, "question": question, "reference": dict(problem.reference)}) + "\n")
    fields = FieldMap(answer=None, reference="reference", id="id")
    return source.model_copy(update={"path": str(path), "subset": None, "split": "train", "limit": None, "fields": fields})


if __name__ == "__main__":
    rlvr.recipe.run(__file__)
