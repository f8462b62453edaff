r"""Grade-school word problems (GSM8K) with GRPO on a small instruction-tuned model.

    rlvr train gsm8k_grpo                                          Qwen2.5-0.5B-Instruct and GSM8K from the Hugging Face hub
    rlvr train gsm8k_grpo model.path=… data.path=train.jsonl held_out.data.path=test.jsonl      local files instead
    rlvr train gsm8k_grpo --dry-run                                checks everything, starts nothing

Meant for one GPU of 24 GiB or more; on a CPU it runs, slowly. What was and was not measured stands in docs/recipes.md.
"""

from __future__ import annotations

import rlvr.recipe
from rlvr.algorithm_settings import KlConfig
from rlvr.algorithms import GrpoConfig
from rlvr.config import (
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

data = DataConfig(
    path="openai/gsm8k",
    subset="main",
    split="train",
    answer_pattern=r"####\s*(.+)",  # the worked solution ends in `#### 72`
    instruction="Think step by step, then give the final answer as a plain number within \\boxed{}.",
    max_prompt_tokens=512,
)

config = RunConfig(
    num_steps=200,
    model=ModelConfig(path="Qwen/Qwen2.5-0.5B-Instruct", gradient_checkpointing=True),
    algorithm=GrpoConfig(kl=KlConfig(coefficient=0.0)),
    data=data,
    held_out=HeldOutConfig(data=data.model_copy(update={"split": "test"}), every=50),
    # Golds and answers are numbers: `1,000` and `1000.00` are the same; anything outside the box counts for nothing.
    verifier=VerifierConfig(name="math", options={"extraction": "strict"}),
    sampling=SamplingConfig(max_new_tokens=512),
    batch=BatchConfig(prompts_per_step=32, group_size=8, tokens_per_microbatch=8192),
    optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=10),
    checkpoint=CheckpointConfig(every=50),
)

if __name__ == "__main__":
    rlvr.recipe.run(__file__)
