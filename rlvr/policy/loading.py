"""Loads a causal language model and its tokenizer, and settles how it will be computed: device, types, attention, adapters."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from rlvr.errors import ConfigError, MissingExtra
from rlvr.logprobs import OutputHead
from rlvr.policy.attention_check import choose_attention, verified_fused_decoder, with_same_logprobs
from rlvr.policy.forward import output_head
from rlvr.policy.fused_decoder import FusedDecoder
from rlvr.policy.liger import use_liger
from rlvr.policy.quantization import is_quantized, quantize
from rlvr.policy.seeded import seeded
from rlvr.seeding import derive_seed
from verifiers.errors import first_line

if TYPE_CHECKING:
    from rlvr.config import LoraConfig, ModelConfig


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be trained and sampled from.

    `model` is the causal language model, adapters injected where LoRA is on; `peft_model` the adapters' owner then. `compute_dtype` is the
    type of matrix products. `attention` "packed" means the model's attention implementation is rlvr's; "padded" that it is its own.
    `fused` is the faster way to run the decoder in training, where there is a verified one. `offload_activations`: whether what a backward
    needs is kept in the host's memory.
    """

    model: nn.Module
    tokenizer: Any
    device: torch.device
    compute_dtype: torch.dtype
    attention: Literal["packed", "padded"]
    peft_model: nn.Module | None = None
    fused: FusedDecoder | None = None
    offload_activations: bool = False

    @property
    def is_quantized(self) -> bool:
        """Whether some of its frozen weights are packed in 4 bits."""
        return any(is_quantized(parameter) for parameter in self.model.parameters())

    @property
    def decoder(self) -> nn.Module:
        """Everything up to the hidden states the output projection sees."""
        return self.model.get_decoder()

    @property
    def head(self) -> OutputHead:
        return output_head(self.model)


def load_model(config: ModelConfig, *, seed: int = 0) -> LoadedModel:
    """Load by Hugging Face name or local folder; dropout is off, weights are of `weights_dtype`, new adapters are drawn from `seed`.

    Raises: ConfigError: the folder is missing, holds no causal language model, or the settings are impossible here.
    """
    from transformers import AutoModelForCausalLM

    _check_folder(config.path)
    device = _device(config.device)
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        model = AutoModelForCausalLM.from_pretrained(config.path, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(not_a_model(config.path, error)) from error
    return prepare_model(model, load_tokenizer(config), config, device=device, seed=seed)


def model_outline(config: ModelConfig) -> LoadedModel:
    """Return a model without its weights, for an engine that reads them itself: configuration, stop tokens and types are there.

    Raises: ConfigError: the folder is missing, or holds no causal language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    _check_folder(config.path)
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(config.path, **options), trust_remote_code=config.trust_remote_code
            )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(not_a_model(config.path, error)) from error
    with suppress(OSError):  # A model without the file stops where its configuration says.
        model.generation_config = GenerationConfig.from_pretrained(config.path, revision=config.revision)
    device = _device(config.device)
    return LoadedModel(model, None, device, compute_dtype(config.dtype, device), "padded")


def load_tokenizer(config: ModelConfig) -> Any:
    """Load the tokenizer of `tokenizer` or, where that is not set, of `path`.

    Raises: ConfigError: there is none.
    """
    from transformers import AutoTokenizer

    source = config.tokenizer or config.path
    remedy = "set model.tokenizer to a folder or name that has one"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=config.revision, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"no tokenizer in {source!r} ({first_line(error)}): {remedy}") from error
    # From a folder without tokenizer files transformers makes one that knows no text and turns every prompt into nothing.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ConfigError(f"no tokenizer in {source!r} (none of its files is there): {remedy}")
    return tokenizer


def prepare_model(
    model: nn.Module, tokenizer: Any, config: ModelConfig, *, device: torch.device | None = None, seed: int = 0
) -> LoadedModel:
    """Settle types, attention and adapters of a model that is already in memory."""
    device = device or _device(config.device)
    model = model.to(device=device, dtype=torch.float32).eval()
    if config.kernels == "liger":
        with_same_logprobs(model, use_liger, "model.kernels=liger")
    attention = choose_attention(model, config.attention)
    generic = (
        device.type != "cpu"
        or config.lora is not None
        or config.gradient_checkpointing
        or config.offload_activations
        or config.weights_dtype != "float32"
    )
    fused = None if generic or attention == "padded" else verified_fused_decoder(model)
    if config.weights_dtype == "bfloat16":
        model.to(torch.bfloat16)
    dtype = compute_dtype(config.dtype, device)
    if config.lora is not None and config.lora.quantization == "nf4":
        quantize(model, dtype)
    peft_model = None if config.lora is None else _with_adapters(model, config.lora, seed)
    if config.gradient_checkpointing:
        _checkpoint_layers(model)
    return LoadedModel(model, tokenizer, device, dtype, attention, peft_model, fused, config.offload_activations)


def compute_dtype(wanted: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """Resolve `auto` to bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def _device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("model.device=cuda, but torch finds no CUDA device: set model.device=cpu or install a CUDA build of torch")
    return torch.device(wanted)


def _check_folder(path: str) -> None:
    """Tell a missing folder from a Hugging Face name before transformers turns both into the same message."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"model.path={path!r} is a folder without config.json: give a folder written by save_pretrained")
    elif folder.is_file():
        raise ConfigError(f"model.path={path!r} is a file: give the folder that holds config.json")
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ConfigError(f"model.path={path!r} does not exist: give a save_pretrained folder or a Hugging Face name such as owner/name")


def not_a_model(path: str, error: Exception) -> str:
    """Say that there is no model, and where it was looked for."""
    where = "" if Path(path).expanduser().is_dir() else " from Hugging Face, and there is no folder of that name"
    return f"model.path={path!r} cannot be loaded as a causal language model{where}: {first_line(error)}"


def _with_adapters(model: nn.Module, lora: LoraConfig, seed: int) -> nn.Module:
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("model.lora needs the extra: pip install 'rlvr[lora]'") from error
    adapters = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        with seeded(derive_seed(seed, "adapters"), model.device):
            adapted = peft.get_peft_model(model, adapters).eval()
    except ValueError as error:
        raise ConfigError(f"model.lora.target_modules={lora.target_modules!r}: {first_line(error)}") from error
    for outside in (model.get_input_embeddings(), model.get_output_embeddings()):
        if hasattr(outside, "base_layer"):
            # Log-probs and decoding read the weights of these two themselves, without adapters.
            raise ConfigError(
                f"model.lora.target_modules={lora.target_modules!r} adapts the token embedding or the output projection, which would not "
                "be trained: name projections inside the layers, or all-linear"
            )
    return adapted


def _checkpoint_layers(model: nn.Module) -> None:
    """Recompute layers in backward. Only the layers are put in training mode, which is what they ask before they recompute, not their
    dropouts."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not model.supports_gradient_checkpointing:
        raise ConfigError(f"model.gradient_checkpointing=true, but {type(model).__name__} does not support it: set it to false")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
