"""The whole loop on whatever device torch finds: checks of correctness first, then learning and throughput.

    python -m bench.gpu_check [--steps 60] [--output docs/results]

Needs no network, no vLLM and no dataset. Writes a dated Markdown file, and exits with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from recipes.arithmetic import build_model, build_tokenizer, distinct_sums
from rlvr.batch import Totals
from rlvr.batching import pack, totals_of
from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig, ModelConfig, OptimizerConfig
from rlvr.engines.transformers import TransformersEngine
from rlvr.losses import CrossEntropyObjective
from rlvr.policy.loading import LoadedModel, prepare_model
from rlvr.policy.protocol import Term
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.tracking.metrics import read_metrics
from rlvr.types import Completion, Sampling, TrainSample


@dataclass(frozen=True, slots=True)
class Check:
    """One number that must not pass its limit."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value <= self.limit


def load(dtype: str, attention: str = "auto") -> LoadedModel:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0, hidden_size=256)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)  # log-probs that differ clearly between tokens
    return prepare_model(model, tokenizer, ModelConfig(path="in memory", dtype=dtype, attention=attention))


async def generate(loaded: LoadedModel, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
    with ComputeThread() as compute:
        engine = TransformersEngine(
            loaded.model, loaded.tokenizer, compute=compute, config=EngineConfig(), compute_dtype=loaded.compute_dtype
        )
        try:
            return list(await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in prompts)))
        finally:
            await engine.close()


def samples_of(prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Completion]]) -> list[TrainSample]:
    samples = []
    for index, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
        for completion in group:
            blank = (0.0,) * len(prompt)
            samples.append(
                TrainSample(
                    token_ids=(*prompt, *completion.token_ids),
                    loss_mask=(False,) * len(prompt) + (True,) * completion.num_tokens,
                    behavior_logprobs=blank + completion.logprobs,
                    advantages=blank + (1.0,) * completion.num_tokens,
                    policy_version=0,
                    group_index=index,
                )
            )
    return samples


def drift(loaded: LoadedModel, samples: Sequence[TrainSample]) -> tuple[float, float]:
    """Mean and largest absolute difference between the engine's log-probs and the policy's, nats."""
    policy = TorchPolicy(loaded, optimizer=OptimizerConfig())
    differences = [
        abs(ours - theirs)
        for sample, logprobs in zip(samples, policy.logprobs(samples), strict=True)
        for ours, theirs, written in zip(logprobs, sample.behavior_logprobs, sample.loss_mask, strict=True)
        if written
    ]
    return statistics.fmean(differences), max(differences)


def gradient(attention: str, samples: Sequence[TrainSample], *, share_prompts: bool, budget: int) -> torch.Tensor:
    loaded = load("float32", attention)
    policy = TorchPolicy(loaded, optimizer=OptimizerConfig())
    totals: Totals = totals_of(samples, max_new_tokens=32)
    minibatch = pack(samples, totals=totals, tokens_per_microbatch=budget, share_prompts=share_prompts, device=loaded.device)
    policy.accumulate_gradients(Term(minibatch, CrossEntropyObjective()))
    return torch.cat([p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None]).double().cpu()


def check_correctness() -> list[Check]:
    tokenizer = build_tokenizer()
    prompts = [tokenizer(problem.question).input_ids for problem in distinct_sums("train", 16, seed=0)]
    sampling = Sampling(max_new_tokens=32, num_samples=4, seed=0)
    exact, fast = load("float32"), load("auto")
    groups = asyncio.run(generate(exact, prompts, sampling))
    samples = samples_of(prompts, groups)
    mean32, max32 = drift(exact, samples)
    mean16, _ = drift(fast, samples_of(prompts, asyncio.run(generate(fast, prompts, sampling))))
    checks = [
        Check("float32: engine against policy log-probs, largest difference (nats)", max32, 1e-3),
        Check("float32: the same, mean", mean32, 1e-4),
        Check(f"{fast.compute_dtype}: engine against policy log-probs, mean difference (nats)", mean16, 0.03),
    ]
    reference = gradient("padded", samples, share_prompts=False, budget=100_000)
    for name, share, budget in (
        ("packed", False, 100_000),
        ("packed, prompts shared", True, 100_000),
        ("packed, small micro-batches", True, 256),
    ):
        ours = gradient("packed", samples, share_prompts=share, budget=budget)
        difference = float((ours - reference).norm() / reference.norm())
        checks.append(Check(f"float32 gradient, {name} against padded, relative", difference, 1e-4))
    return checks


def check_learning(num_steps: int) -> tuple[list[Check], list[str]]:
    """Warm up and reinforce on sums; returns checks and lines about speed."""
    import recipes.arithmetic_grpo as recipe
    from rlvr.run import train

    with tempfile.TemporaryDirectory() as folder:
        config = recipe.config.model_copy(update={"runs_folder": folder, "name": "check", "num_steps": num_steps})
        began = time.perf_counter()
        prepared = recipe.prepare(config, Path(folder) / "preparation")
        warmed = time.perf_counter()
        result = train(prepared)
        ended = time.perf_counter()
        rows = [row.values for row in read_metrics(result.folder / "metrics.jsonl") if "time/step_seconds" in row.values]
    assert result.first is not None and result.last is not None and result.first.sampled_accuracy is not None
    gained = (result.last.sampled_accuracy or 0.0) - result.first.sampled_accuracy
    lines = [
        result.summary().partition(" run:")[0],
        f"warm-up {warmed - began:.0f} s, {num_steps} steps with evaluations {ended - warmed:.0f} s",
        *(
            f"median {name}: {statistics.median(float(row[name] or 0) for row in rows):.4g}"
            for name in (
                "time/step_seconds",
                "time/rollout_seconds",
                "time/update_seconds",
                "time/tokens_per_second",
                "engine/logprob_drift",
            )
        ),
    ]
    if torch.cuda.is_available():
        lines.append(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    return [Check("lost sampled accuracy on held-out problems", -gained, -0.1)], lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    checks, lines = check_correctness(), []
    learning, lines = check_learning(options.steps)
    checks += learning
    report = [
        f"# The whole loop on {device}",
        "",
        f"{date.today()}, torch {torch.__version__}. Script: `bench/gpu_check.py`.",
        "",
        "| check | value | limit | |",
        "|---|---|---|---|",
        *(f"| {check.name} | {check.value:.3g} | {check.limit:g} | {'ok' if check.passed else 'FAILED'} |" for check in checks),
        "",
        *(f"* {line}" for line in lines),
    ]
    print("\n".join(report))
    options.output.mkdir(parents=True, exist_ok=True)
    kind = "gpu" if torch.cuda.is_available() else "cpu"
    (options.output / f"{date.today()}-{kind}-check.md").write_text("\n".join(report) + "\n")
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
