"""Compares ways of generating on the CPU: transformers' `generate`, its continuous batching, and rlvr's embedded engine.

Run: `OMP_NUM_THREADS=1 python bench/decode.py [--models T A B] [--rounds 5] [--output FILE.json]`. One torch thread, process time, all
contenders interleaved in every round, medians. Only ratios carry over to another machine.
Shapes: T 256 rows that end by themselves after 14 to 32 tokens (mean 23), A and B 64 rows of exactly 96 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)

from bench.provenance import processor
from rlvr.attention import register
from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig
from rlvr.engines.networks import PlannedNetwork
from rlvr.engines.transformers import TransformersEngine
from rlvr.types import Sampling

VOCABULARY = 128
UNREACHABLE_STOP = VOCABULARY - 1


@dataclass(frozen=True, slots=True)
class Workload:
    """A model size and what it is asked to write: `limits[p]` tokens for each of `group_size` completions of prompt p."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    group_size: int
    limits: tuple[int, ...]

    def prompts(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(6, 11, (len(self.limits),), generator=generator).tolist()
        return [torch.randint(2, VOCABULARY - 2, (length,), generator=generator).tolist() for length in lengths]


WORKLOADS = {
    "T": Workload("T", 128, 384, 4, 8, tuple(14 + (7 * i) % 19 for i in range(32))),
    "A": Workload("A", 256, 768, 4, 8, (96,) * 8),
    "B": Workload("B", 512, 1536, 6, 8, (96,) * 8),
}


def build_model(workload: Workload, attention: str) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=workload.hidden_size,
        intermediate_size=workload.intermediate_size,
        num_hidden_layers=workload.num_layers,
        num_attention_heads=workload.hidden_size // 64 if workload.hidden_size > 128 else 4,
        num_key_value_heads=workload.hidden_size // 128 if workload.hidden_size > 128 else 2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=UNREACHABLE_STOP,
        pad_token_id=0,
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).eval()


class RowLimits(StoppingCriteria):
    """Ends each row after its own number of tokens, as a stop token would."""

    def __init__(self, limits: torch.Tensor, prompt_width: int) -> None:
        self._limits, self._width = limits, prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return input_ids.shape[1] - self._width >= self._limits


def hugging_face(workload: Workload, dtype: torch.dtype) -> Callable[[], int]:
    """`generate` on left-padded prompts, every completion its own row, as TRL calls it."""
    model = build_model(workload, "sdpa").to(dtype)
    rows = [prompt for prompt in workload.prompts() for _ in range(workload.group_size)]
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    limits = torch.tensor(workload.limits).repeat_interleave(workload.group_size)
    config = GenerationConfig(
        max_new_tokens=max(workload.limits), do_sample=True, top_k=0, top_p=1.0, pad_token_id=0, eos_token_id=None, suppress_tokens=None
    )

    def run() -> int:
        criteria = StoppingCriteriaList([RowLimits(limits, width)])
        with torch.no_grad():
            model.generate(input_ids=tokens, attention_mask=mask, generation_config=config, stopping_criteria=criteria)
        return int(limits.sum())

    return run


def continuous_batching(workload: Workload, dtype: torch.dtype) -> Callable[[], int]:
    """transformers' `generate_batch`; it has one limit for all rows, so it is compared only where all are equal."""
    model = build_model(workload, "sdpa").to(dtype)
    rows = [prompt for prompt in workload.prompts() for _ in range(workload.group_size)]
    config = GenerationConfig(max_new_tokens=max(workload.limits), do_sample=True, eos_token_id=-1, pad_token_id=0)
    # Left to itself it takes most of the machine's memory for its cache.
    batching = ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=1024)

    def run() -> int:
        out = model.generate_batch(inputs=rows, generation_config=config, continuous_batching_config=batching, warmup=False)
        return sum(len(result.generated_tokens) for result in out.values())

    return run


def embedded(workload: Workload, compute: ComputeThread, dtype: torch.dtype, *, fused: bool = True) -> Callable[[], int]:
    """rlvr's engine, weights taken over anew in every run as after a policy update."""
    model = build_model(workload, "rlvr")
    words = {f"t{i}": i for i in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=f"t{UNREACHABLE_STOP}")
    config = EngineConfig(max_batch_size=256)
    engine = TransformersEngine(model, tokenizer, compute=compute, config=config, compute_dtype=dtype)
    engine._stop_ids = frozenset()
    if not fused:
        engine._build = lambda: PlannedNetwork(model, dtype)
    prompts = workload.prompts()

    async def sample() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(engine.generate(prompt, Sampling(limit, num_samples=workload.group_size, seed=i)))
                for i, (prompt, limit) in enumerate(zip(prompts, workload.limits, strict=True))
            ]
        return sum(completion.num_tokens for task in tasks for completion in task.result())

    def run() -> int:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.0)
        return asyncio.run(sample())

    return run


def measure(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Return each contender's median process time in milliseconds; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            begin = time.process_time()
            run()
            if index:
                times[name].append(1000 * (time.process_time() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], help="leave out contenders whose name contains one of these")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    register()
    results: dict[str, dict[str, float]] = {}
    with ComputeThread(num_threads=1) as compute:
        for name in options.models:
            workload = WORKLOADS[name]
            makers: dict[str, Callable[[], Callable[[], int]]] = {}
            for dtype, label in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
                makers[f"generate {label}"] = lambda w=workload, d=dtype: hugging_face(w, d)
                if len(set(workload.limits)) == 1:
                    makers[f"generate_batch {label}"] = lambda w=workload, d=dtype: continuous_batching(w, d)
                makers[f"rlvr plan {label}"] = lambda w=workload, d=dtype: embedded(w, compute, d, fused=False)
                makers[f"rlvr {label}"] = lambda w=workload, d=dtype: embedded(w, compute, d)
            kept = {label: make() for label, make in makers.items() if not any(part in label for part in options.without)}
            results[name] = measure(kept, options.rounds)
            fastest = min((v for k, v in results[name].items() if k.startswith("generate")), default=float("nan"))
            for label, value in results[name].items():
                print(f"{name}  {label:22} {value:8.0f} ms   {fastest / value:5.2f}x the faster generate", flush=True)
    if options.output is not None:
        document = {"date": str(date.today()), "machine": processor(), "torch": torch.__version__, "median_ms": results}
        options.output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
