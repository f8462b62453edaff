r"""Competition mathematics with DAPO: clip-higher, dynamic sampling, token-level loss and soft overlong punishment (arXiv:2503.14476).

    rlvr train math_dapo                                           Qwen2.5-Math-7B and DAPO-Math-17k from the Hugging Face hub
    rlvr train math_dapo model.path=Qwen/Qwen2.5-Math-1.5B         a smaller model
    rlvr train math_dapo --dry-run                                 checks everything, starts nothing

Meant for one GPU of 80 GiB with 1.5B parameters and more than one with 7B. What was and was not measured stands in docs/recipes.md.
"""

from __future__ import annotations

import rlvr.recipe
from rlvr.algorithms import DapoConfig
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

config = RunConfig(
    num_steps=500,
    model=ModelConfig(path="Qwen/Qwen2.5-Math-7B", gradient_checkpointing=True),
    algorithm=DapoConfig(),
    data=DataConfig(
        # DAPO-Math-17k (BytedTsinghua-SIA/DAPO-Math-17k) with each problem once and without the original's answer instruction.
        path="open-r1/DAPO-Math-17k-Processed",
        subset="en",
        fields=FieldMap(question="prompt", answer="solution"),
        instruction="Please reason step by step, and put your final answer within \\boxed{}.",
    ),
    held_out=HeldOutConfig(num_problems=256, every=50),
    # All golds of DAPO-Math-17k are integers.
    verifier=VerifierConfig(name="math", options={"extraction": "strict"}),
    # Qwen2.5-Math reads 4096 tokens at most: 1024 of prompt, 3072 of response.
    sampling=SamplingConfig(max_new_tokens=3072),
    batch=BatchConfig(prompts_per_step=128, group_size=16, minibatches_per_step=4, tokens_per_microbatch=16_384),
    optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=20, weight_decay=0.1),
    checkpoint=CheckpointConfig(every=25),
)

if __name__ == "__main__":
    rlvr.recipe.run(__file__)
