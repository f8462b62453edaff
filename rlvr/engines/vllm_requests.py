"""What both vLLM engines say to vLLM and read from it: sampling parameters, samples, and the versions of the weights that wrote them.

Imports nothing of vLLM: parameters are plain mappings, as its token endpoint takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rlvr.types import Completion, Sampling
from verifiers.types import FinishReason

FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
"""What vLLM calls other than these (abort, error) is `aborted`."""
TRANSFER_BACKEND = "rlvr_state_dict"
"""The name under which `rlvr.engines.vllm_transfer` is known to vLLM."""
CPU_BATCHED_TOKENS = 4096
PROMPT_LOGPROBS = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False, "temperature": 0.0}
"""Sampling parameters that ask for the log-probs of the given tokens."""
UNLABELLED = "default"
"""vLLM's label of the weights it started with."""
VLLM_DEFAULTS = {
    # Log-probs of the distribution that was sampled from. vLLM's own default is before temperature, which makes every ratio wrong.
    "logprobs_mode": "processed_logprobs",
    "enable_prefix_caching": True,
    # Else the model's generation_config.json adds its own temperature, top-p or repetition penalty to requests that do not name theirs.
    "generation_config": "vllm",
}


def sampling_parameters(sampling: Sampling, stop_ids: Iterable[int]) -> dict[str, Any]:
    """Return vLLM's sampling parameters; the log-prob of each sampled token is asked for, the text is not."""
    return {
        "n": sampling.num_samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": sorted(stop_ids),
        "logprobs": 0,
        "detokenize": False,
    }


def completion_of(
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    finish_reason: str | None,
    spans: Sequence[str],
    *,
    decode: Callable[[Sequence[int]], str],
) -> Completion:
    """Return one completion. `spans` are vLLM's labels of the weights that wrote it, in order; the stop token is among the tokens."""
    versions = [0 if label == UNLABELLED else int(label) for label in spans]
    return Completion(
        text=decode(token_ids),
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs),
        finish_reason=FINISH_REASONS.get(finish_reason or "", "aborted"),
        first_version=versions[0],
        last_version=versions[-1],
    )


ADAPTER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks that vLLM 0.32 can be set up for."""


def adapter_arguments(rank: int) -> dict[str, int | bool]:
    """Return what vLLM needs to sample with adapters of this rank: the present ones, and those of completions begun before."""
    largest = next((each for each in ADAPTER_RANKS if each >= rank), rank)
    return {"enable_lora": True, "max_lora_rank": largest, "max_loras": 2}


def adapter_name(version: int) -> str:
    """The adapters of each version have a name of their own: vLLM's prefix cache tells them apart by it."""
    return f"policy-{version}"


def model_shape(config: object) -> dict[str, int | str]:
    """Return what of a text model's configuration the shapes of its weights depend on."""
    names = (
        "model_type",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return {name: value for name in names if (value := getattr(config, name, None)) is not None}


def cpu_arguments(max_model_len: int) -> dict[str, int | bool]:
    """Return what vLLM needs on a CPU: prompts in one piece, or its random numbers fail.

    vLLM 0.32 takes back the draw of a request whose prompt it has only begun, and the generators of a CPU cannot: the engine dies with
    "CPU Generator does not use offset" once more prompt tokens wait than one step takes.
    """
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(max_model_len, CPU_BATCHED_TOKENS)}
