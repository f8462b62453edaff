"""AdamW with warm-up and a schedule; the learning rate is a function of the step, so it has no state to save."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlvr.errors import MissingExtra

if TYPE_CHECKING:
    from rlvr.config import OptimizerConfig


def build_optimizer(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Decay matrices only: pulling norms and biases towards zero fights their purpose.

    Raises: MissingExtra: `adamw_8bit` without bitsandbytes.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.kind == "adamw_8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise MissingExtra("optimizer.kind=adamw_8bit needs the extra: pip install 'rlvr[bitsandbytes]'") from error
        return AdamW8bit(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def step_count(kind: str, steps: int, parameter: nn.Parameter) -> Tensor | int:
    """How an optimizer of this kind notes down how often it has stepped."""
    return steps if kind == "adamw_8bit" else torch.tensor(float(steps), device=parameter.device)


def learning_rate(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """Return the rate of step `step`, counted from 0: linear warm-up that reaches the full rate at `warmup_steps`, then the schedule.

    Example: rate 1, warm-up 4: steps 0 … 4 have 0.25, 0.5, 0.75, 1, and the first of the schedule.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / max(1, num_steps - 1 - config.warmup_steps))
    left = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * left
