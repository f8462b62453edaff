"""Tiny models, a tokenizer and a driver for the engine's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr.attention import register
from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig
from rlvr.engines.transformers import TransformersEngine
from rlvr.types import Completion, Sampling

VOCABULARY = 24
END = 1


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter; token 0 pads and token 1 ends."""
    words = {"<pad>": 0, "<end>": END} | {chr(ord("a") + i): i + 2 for i in range(VOCABULARY - 2)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(words, [])), pad_token="<pad>", eos_token="<end>")


def tiny_model(seed: int = 0, *, attention: str = "rlvr", **overrides: object) -> Qwen2ForCausalLM:
    """A float32 model with weights large enough that its tokens differ clearly in probability."""
    register()
    settings = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=END,
        pad_token_id=0,
        initializer_range=0.25,
    )
    config = Qwen2Config(**(settings | overrides))
    config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model.eval()


def complete(engine: TransformersEngine, *requests: tuple[Sequence[int], Sampling], timeout: float = 60.0) -> list[list[Completion]]:
    """Ask for all completions at once, as a trainer does."""

    async def main() -> list[list[Completion]]:
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.generate(prompt, sampling)) for prompt, sampling in requests]
        return [task.result() for task in tasks]

    return asyncio.run(main())


def engine_over(model: Qwen2ForCausalLM, compute: ComputeThread, *, max_batch_size: int = 64, **options: object) -> TransformersEngine:
    return TransformersEngine(model, tiny_tokenizer(), compute=compute, config=EngineConfig(max_batch_size=max_batch_size), **options)
