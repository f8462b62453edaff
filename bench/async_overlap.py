"""Whether asynchronous training hides generation: time per step with an engine that takes a set time, at several bounds of staleness.

    python -m bench.async_overlap --output docs/results/DATE-async-overlap.md

The engine is simulated: it waits, as one on other machines would be waited for, and returns random tokens. Everything else is the real
trainer: buffer, scoring, credit, packing, forward, backward and optimizer of a model of 0.9 M parameters. A step that does not overlap
takes rollout + update, one that does takes the longer of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bench.provenance import commit, processor
from rlvr.config import RunConfig
from rlvr.engines.protocol import EngineSetting, NamedTensors
from rlvr.run import train
from rlvr.tracking.metrics import read_metrics
from rlvr.types import Completion, Sampling
from verifiers.types import Problem, Response, Verdict

TOKENS = 48
PROMPTS_PER_STEP = 32
WARMUP_STEPS = 3


class SimulatedEngine:
    """Takes `SIMULATED_SECONDS` for each group, a step's worth of groups at a time, and returns random tokens."""

    shares_weights = True

    @classmethod
    async def open(cls, setting: EngineSetting) -> SimulatedEngine:
        return cls(float(os.environ["SIMULATED_SECONDS"]), len(setting.tokenizer))

    def __init__(self, seconds: float, num_tokens: int) -> None:
        self._seconds = seconds
        self._num_tokens = num_tokens
        self._version = 0
        self._places = asyncio.Semaphore(PROMPTS_PER_STEP)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        async with self._places:
            version = self._version
            await asyncio.sleep(self._seconds)
        draw = random.Random(sampling.seed)
        return [
            Completion("", tuple(draw.randrange(5, self._num_tokens) for _ in range(TOKENS)), (-4.0,) * TOKENS, "stop", version, version)
            for _ in range(sampling.num_samples)
        ]

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return [0.0] * len(token_ids)

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        self._version = version

    def replicas(self) -> Sequence[SimulatedEngine]:
        return (self,)

    async def standby(self) -> None: ...

    async def close(self) -> None: ...


class Coin:
    """Scores at random, so that every group has something to learn from."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(float(index % 2), "correct" if index % 2 else "incorrect") for index, _ in enumerate(responses)]


def measure(folder: Path, model: Path, *, seconds: float, max_staleness: int, steps: int) -> tuple[float, float]:
    """Return the median time of a step and of its update, seconds."""
    os.environ["SIMULATED_SECONDS"] = str(seconds)
    config = RunConfig.model_validate(
        {
            "name": f"{seconds:.2f}-{max_staleness}-{random.random()}",
            "runs_folder": str(folder),
            "num_steps": steps + WARMUP_STEPS,
            "num_threads": 1,
            "model": {"path": str(model)},
            "data": {"path": str(folder / "problems.jsonl"), "template": "plain"},
            "verifier": {"name": "bench.async_overlap:Coin"},
            "engine": {"name": "bench.async_overlap:SimulatedEngine"},
            "sampling": {"max_new_tokens": TOKENS},
            "batch": {"prompts_per_step": PROMPTS_PER_STEP, "group_size": 8, "max_staleness": max_staleness, "tokens_per_microbatch": 8192},
            "algorithm": {"name": "grpo", "kl": {"coefficient": 0.0}},
            "optimizer": {"learning_rate": 1e-6},
            "guards": {"patience": 1000, "max_logprob_drift": 1e9},
            "tracking": {"sinks": [], "rollouts_every": 0},
        }
    )
    rows = [dict(row.values) for row in read_metrics(train(config).folder / "metrics.jsonl") if row.step > WARMUP_STEPS]
    return statistics.median(row["time/step_seconds"] for row in rows), statistics.median(row["time/update_seconds"] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    from recipes.arithmetic import build_model, build_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "problems.jsonl").write_text("".join(json.dumps({"question": f"{i}", "answer": "0"}) + "\n" for i in range(500)))
        tokenizer = build_tokenizer()
        build_model(tokenizer, seed=0).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        rows = []
        _, update = measure(folder, folder / "model", seconds=0.01, max_staleness=0, steps=arguments.steps)
        for factor in (0.5, 1.0, 2.0):
            seconds = factor * update
            for staleness in (0, 1, 2):
                step, own_update = measure(folder, folder / "model", seconds=seconds, max_staleness=staleness, steps=arguments.steps)
                rows.append((seconds, staleness, own_update, step))
                print(rows[-1], flush=True)
    lines = [
        "# Asynchronous training hides generation",
        "",
        f"{date.today()}, commit {commit()}, {processor()}, one thread of {os.cpu_count()} cores. `python -m bench.async_overlap`: a "
        f"simulated engine that takes a set time for a step's groups, the real trainer, 32 x 8 completions of {TOKENS} tokens; medians "
        f"of {arguments.steps} steps.",
        "",
        "| rollout, s | max_staleness | update, s | rollout + update | longer of the two | **step, s** | step / longer |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {seconds:.2f} | {staleness} | {update:.2f} | {seconds + update:.2f} | {max(seconds, update):.2f} | **{step:.2f}** | "
            f"{step / max(seconds, update):.2f} |"
            for seconds, staleness, update, step in rows
        ),
        "",
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
