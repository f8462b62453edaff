"""Frozen projections in 4 bits, for adapters over a base that would not fit otherwise (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlvr.errors import MissingExtra

QUANT_TYPE = "nf4"


def quantize(model: nn.Module, compute_dtype: torch.dtype) -> None:
    """Replace every linear layer of the decoder by one whose weight is in 4 bits; embedding, norms and output projection stay.

    Raises: MissingExtra: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes as bnb
    except ImportError as error:
        raise MissingExtra("model.lora.quantization=nf4 needs the extra: pip install 'rlvr[bitsandbytes]'") from error
    decoder = model.get_decoder()
    for name, layer in [(n, m) for n, m in decoder.named_modules() if type(m) is nn.Linear]:
        packed = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=compute_dtype, quant_type=QUANT_TYPE
        )
        weight = layer.weight
        packed.weight = bnb.nn.Params4bit(weight.data, requires_grad=False, quant_type=QUANT_TYPE)
        packed.bias = layer.bias
        packed.support_avx512bf16_for_cpu = False  # It would pack the weight anew between two forward passes.
        owner, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(owner), leaf, packed.to(weight.device))
    model.is_loaded_in_4bit = True  # peft asks for it.


def is_quantized(parameter: Any) -> bool:
    """Whether a weight is packed in 4 bits."""
    return getattr(parameter, "quant_state", None) is not None


def dequantized(parameter: Any) -> Tensor:
    """Return a packed weight as numbers, in the type it had."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, parameter.quant_state)
