"""A run small enough for a test, and a verifier that a model of random weights can learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.config import RunConfig
from verifiers.types import Problem, Response, Verdict


@dataclass(frozen=True, slots=True)
class LetterShare:
    """Scores a response by its share of lower-case letters, rounded so that groups may tie."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [verdict(response.text) for response in responses]


def verdict(text: str) -> Verdict:
    share = round(sum(character.islower() for character in text) / max(len(text), 1), 1)
    return Verdict(share, "correct" if share >= 0.5 else "incorrect", extracted=text[:10])


VERIFIER = f"{__name__}:LetterShare"


def write_problems(path: Path, count: int = 40) -> Path:
    path.write_text("".join(json.dumps({"question": f"say {number}", "answer": str(number)}) + "\n" for number in range(count)))
    return path


def small_run(folder: Path, model: Path, /, **changes: Any) -> RunConfig:
    """Eight steps of two groups of four, ten tokens each, with a checkpoint and an evaluation every second step."""
    problems = folder / "problems.jsonl"
    if not problems.exists():
        write_problems(problems)
    settings: dict[str, Any] = {
        "runs_folder": str(folder / "runs"),
        "name": "small",
        "num_steps": 8,
        "num_threads": 1,
        "model": {"path": str(model)},
        "data": {"path": str(problems), "template": "plain"},
        "held_out": {"num_problems": 4, "every": 2},
        "verifier": {"name": VERIFIER},
        "sampling": {"max_new_tokens": 10},
        "batch": {"prompts_per_step": 2, "group_size": 4, "tokens_per_microbatch": 64},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2, "schedule": "linear"},
        "algorithm": {"name": "grpo", "kl": {"coefficient": 0.0}},
        "checkpoint": {"every": 2, "keep_last": 3},
        "tracking": {"sinks": []},
        "guards": {"max_truncated_share": 1.0, "patience": 1000},
    }
    return RunConfig.model_validate(merge(settings, changes))


def merge(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in changes.items():
        merged[name] = merge(merged[name], value) if isinstance(value, dict) and isinstance(merged.get(name), dict) else value
    return merged
