r"""Competition mathematics with process rewards: a process reward model learns from Math-Shepherd, then judges every step of the policy's.

    rlvr train math_process_reward                                 Qwen2.5-Math-1.5B, Math-Shepherd and MATH from the Hugging Face hub
    rlvr train math_process_reward --dry-run                       checks everything but the process reward model, starts nothing

A process reward model that is there already is taken as it is; the one made here stays in runs/NAME-preparation/prm:

    rlvr train math_process_reward 'verifier.options={parts: [{verifier: math}, {verifier: process_reward, options: {model: prm}}]}'

Meant for one GPU of 80 GiB; with several processes train the process reward model first (`rlvr prm train`), or all but one wait for it.
What was and was not measured stands in docs/recipes.md.
"""

from __future__ import annotations

from pathlib import Path

import rlvr.recipe
from recipes.preparation import judging_with, make_folder, train_prepared
from rlvr.algorithm_settings import KlConfig, ProcessConfig
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
from rlvr.prm.config import ClassifierConfig, InputConfig, PrmConfig, StepDataConfig

# Solutions to GSM8K and MATH; a step is right where any of eight continuations found the answer (arXiv:2312.08935).
prm = PrmConfig(
    name="prm",
    num_steps=2000,
    model=ClassifierConfig(path="Qwen/Qwen2.5-Math-1.5B"),
    data=StepDataConfig(path="trl-lib/math_shepherd"),
    input=InputConfig(separator="\n", max_tokens=1024),
    samples_per_step=128,
    tokens_per_microbatch=16_384,
    optimizer=OptimizerConfig(learning_rate=5e-6, warmup_steps=50, schedule="cosine"),
    checkpoint=CheckpointConfig(every=500),
)

data = DataConfig(
    path="nlile/hendrycks-MATH-benchmark",  # MATH divided as in PRM800K: 12 000 problems, and 500 that are only measured on.
    fields=FieldMap(question="problem", answer="answer"),
    instruction="Please reason step by step, and put your final answer within \\boxed{}.",
)

config = RunConfig(
    num_steps=300,
    model=ModelConfig(path="Qwen/Qwen2.5-Math-1.5B", gradient_checkpointing=True),
    # PURE, arXiv:2504.15275: the worst step decides, and the outcome is paid as well, because a process reward alone is soon exploited.
    algorithm=GrpoConfig(advantage="process_min_form", process=ProcessConfig(outcome_weight=1.0), kl=KlConfig(coefficient=0.0)),
    data=data,
    held_out=HeldOutConfig(data=data.model_copy(update={"split": "test"}), every=50),
    # The run reports how far the process reward stands above the outcome: verdict/audit_gap.
    verifier=VerifierConfig(
        name="with_steps",
        options={
            "parts": [
                {"verifier": "math", "options": {"extraction": "strict"}},
                {"verifier": "process_reward", "options": {"model": PREPARED_BY_RECIPE, "separator": "\n", "signed_steps": True}},
            ]
        },
        timeout_seconds=120.0,
    ),
    sampling=SamplingConfig(max_new_tokens=2048),
    batch=BatchConfig(prompts_per_step=64, group_size=8, tokens_per_microbatch=16_384),
    optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=10),
    checkpoint=CheckpointConfig(every=50),
)


def main(config: RunConfig, *, resume: Path | None = None) -> None:
    """Train the process reward model, then the policy; a resumed run has the first behind it."""
    train_prepared(config, resume, task="math-process", prepare=prepare)


def prepare(config: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with the process reward model in it, which is trained unless the verifier names one.

    Where that training was stopped, the same name goes on with it.
    """
    from rlvr.prm.training import train_prm

    if not config.verifier.asks_prepared_model:
        return config
    begun = folder / "prm"
    if not begun.exists():
        make_folder(config, folder)
    settings = prm.model_copy(update={"runs_folder": str(folder), "seed": config.seed, "tracking": config.tracking})
    result = train_prm(settings, resume=begun if begun.exists() else None)
    return config.model_copy(update={"verifier": judging_with(config.verifier, result.export)})


if __name__ == "__main__":
    rlvr.recipe.run(__file__)
