"""Liger's fused kernels in a model of transformers, if they compute what its own modules do."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlvr.errors import ConfigError, MissingExtra


def use_liger(model: nn.Module) -> None:
    """Put Liger's norms, rotations and gated MLPs into a model on a GPU. Its fused losses stay out: log-probs are rlvr's own.

    Whether the model still says the same is the caller's to look at.

    Raises: ConfigError: there is no GPU, or Liger does not know the model. MissingExtra: Liger is not installed.
    """
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN, _apply_liger_kernel_to_instance
    except ImportError as error:
        raise MissingExtra("model.kernels=liger needs the extra: pip install 'rlvr[liger]'") from error
    if not torch.cuda.is_available():
        raise ConfigError("model.kernels=liger needs a GPU: set model.kernels=own")
    config: Any = model.config
    if config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ConfigError(f"model.kernels=liger: Liger knows no kernels for {type(model).__name__}; set model.kernels=own")
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
