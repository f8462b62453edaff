"""Looks at a model without loading it: configuration, tokenizer, shape, and whether all its weights are there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.config import ModelConfig
from rlvr.errors import ConfigError
from rlvr.memory_forecast import ModelShape, model_shape
from verifiers.errors import first_line

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class InspectedModel:
    """A model as far as it is known before its weights are read. `num_trainable` counts adapters only where LoRA is on."""

    architecture: str
    tokenizer: Any
    shape: ModelShape
    num_trainable: int
    weights: str


def inspect_model(config: ModelConfig) -> InspectedModel:
    """Build the model without memory for weights and look for the weight files.

    Raises: ConfigError: the folder or name is wrong, holds no causal language model, has no tokenizer, or weights are missing or cut off.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlvr.policy.loading import load_tokenizer, not_a_model

    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    folder = Path(config.path).expanduser()
    if not folder.is_dir() and (config.path.startswith((".", "/", "~")) or config.path.count("/") > 1):
        raise ConfigError(
            f"model.path={config.path!r} does not exist: give a save_pretrained folder or a Hugging Face name such as owner/name"
        )
    try:
        model_config = AutoConfig.from_pretrained(config.path, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(model_config, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(not_a_model(config.path, error)) from error
    tokenizer = load_tokenizer(config)
    parameters = dict(model.named_parameters())
    matrices = sum(parameter.numel() for name, parameter in parameters.items() if parameter.ndim == 2 and "embed_tokens" not in name)
    shape = model_shape(model_config, sum(parameter.numel() for parameter in parameters.values()), matrices)
    trainable = shape.num_parameters if config.lora is None else _num_adapter_parameters(model, config)
    weights = _check_folder(folder) if folder.is_dir() else _check_name(config)
    return InspectedModel(type(model).__name__, tokenizer, shape, trainable, weights)


def _num_adapter_parameters(model: Any, config: ModelConfig) -> int:
    """Count rank x (in + out) for every adapted projection."""
    from torch import nn

    assert config.lora is not None
    targets = config.lora.target_modules
    adapted = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and (layer is not model.get_output_embeddings() if targets == "all-linear" else name.rpartition(".")[2] in targets)
    ]
    if not adapted:
        raise ConfigError(f"model.lora.target_modules={targets!r}: the model has no such projections")
    return sum(config.lora.rank * (layer.in_features + layer.out_features) for layer in adapted)


def _check_folder(folder: Path) -> str:
    """Say where the weights lie; every safetensors file's header is read, so a file cut off in a download is found."""
    from safetensors import SafetensorError, safe_open

    names: list[str] = []
    for index in INDEX_FILES:
        if (folder / index).is_file():
            names = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
            break
    names = names or [name for name in WEIGHT_FILES if (folder / name).is_file()][:1]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise ConfigError(f"model.path={str(folder)!r} lacks weights: {', '.join(missing) or ' or '.join(WEIGHT_FILES)} is not there")
    for name in names:
        if name.endswith(".safetensors"):
            try:
                with safe_open(folder / name, "pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{folder / name} is damaged ({first_line(error)}): copy or download it again") from error
    return f"{len(names)} weight file{'s' if len(names) > 1 else ''} in {folder}"


def _check_name(config: ModelConfig) -> str:
    import httpx
    from huggingface_hub import list_repo_files, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    for name in (*INDEX_FILES, *WEIGHT_FILES):
        if isinstance(try_to_load_from_cache(config.path, name, revision=config.revision), str):
            return f"{name} in the Hugging Face cache"
    try:
        files = list_repo_files(config.path, revision=config.revision)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise ConfigError(
            f"model.path={config.path!r}: weights are not in the cache and cannot be looked up: {first_line(error)}"
        ) from error
    if not set(files) & {*INDEX_FILES, *WEIGHT_FILES}:
        raise ConfigError(f"model.path={config.path!r} has no weights that transformers reads")
    return "weights will be downloaded from Hugging Face"
