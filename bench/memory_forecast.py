"""Compares forecasts of peak memory with the measured peak of two updates, one job per configuration.

Run: python -m bench.memory_forecast. Numbers of a run on CPU are in docs/memory.md. Measured is the largest sum of bytes in live tensors,
from the building of the policy to the end of its second update, on the rank that needs most: on CPU from the profiler's record of every
allocation, on CUDA from torch's own count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlvr.batch import MiniBatch, Totals
from rlvr.batching import build_microbatch
from rlvr.config import DataConfig, DeepSpeedConfig, LoraConfig, ModelConfig, OptimizerConfig, SftConfig
from rlvr.distributed import joined_ranks
from rlvr.logprobs import CHUNK_ELEMENTS
from rlvr.losses import CrossEntropyObjective
from rlvr.memory_forecast import Division, Workload, forecast, format_bytes, model_shape
from rlvr.policy.deepspeed_policy import DeepSpeedPolicy
from rlvr.policy.loading import compute_dtype, prepare_model
from rlvr.policy.packed_attention import PLAIN_MAX_AREA
from rlvr.policy.protocol import Term
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.types import TrainSample


@dataclass(frozen=True)
class Case:
    """One configuration: `tokens` in each of a rank's two micro-batches, in sequences of `length`."""

    hidden: int
    layers: int
    vocabulary: int
    tokens: int
    length: int
    dtype: str
    weights_dtype: str = "float32"
    checkpointing: bool = False
    lora: bool = False
    stage: int | None = None
    ranks: int = 1


SMALL, WIDE, DEEP = (256, 4, 30000, 2048, 256), (768, 4, 8000, 1024, 256), (512, 12, 128, 2048, 256)
CASES = (
    Case(512, 6, 128, 4096, 256, "float32"),
    Case(512, 6, 128, 4096, 256, "bfloat16"),
    Case(512, 6, 128, 4096, 2048, "bfloat16"),
    Case(256, 4, 30000, 4096, 256, "bfloat16"),
    Case(512, 6, 128, 4096, 256, "bfloat16", checkpointing=True),
    Case(512, 12, 128, 4096, 256, "bfloat16", checkpointing=True),
    Case(512, 12, 128, 4096, 256, "bfloat16", lora=True),
    *(Case(*sizes, "float32", stage=stage, ranks=2) for sizes in (SMALL, WIDE, DEEP) for stage in (0, 1, 2, 3)),
    *(Case(*WIDE, "bfloat16", "bfloat16", stage=stage, ranks=2) for stage in (1, 2, 3)),
    *(Case(*WIDE, "float32", checkpointing=True, stage=stage, ranks=4) for stage in (2, 3)),
)


def main() -> None:
    print("| hidden x layers | vocabulary | tokens (length) | compute / weights | ranks, ZeRO | measured | forecast | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        measured, predicted = run(case)
        extras = ", checkpointing" * case.checkpointing + ", LoRA" * case.lora
        sizes = f"{case.hidden} x {case.layers} | {case.vocabulary} | {case.tokens} ({case.length}) | {case.dtype} / {case.weights_dtype}"
        division = "1, none" if case.stage is None else f"{case.ranks}, stage {case.stage}"
        results = f"{format_bytes(measured)} | {format_bytes(predicted)} | {predicted / measured:.2f}"
        print(f"| {sizes}{extras} | {division} | {results} |", flush=True)


def run(case: Case) -> tuple[int, int]:
    """Return the measured and the forecast peak in bytes, each the largest of a rank, from processes of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={case.ranks}"] if case.ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launcher, "-m", "bench.memory_forecast", json.dumps(asdict(case)), folder]
        subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"DS_ACCELERATOR": "cpu"})
        results = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    return max(measured for measured, _ in results), max(predicted for _, predicted in results)


def measure(case: Case) -> tuple[int, int]:
    """Return measured and forecast peak in bytes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured, model = peak_of(lambda: update(case, device), device)
    parameters = dict(model.named_parameters())
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in parameters.items()}
    flat = ("norm", "bias")
    matrices = sum(size for name, size in sizes.items() if "embed_tokens" not in name and not any(word in name for word in flat))
    shape = model_shape(model.config, sum(sizes.values()), matrices)
    work = Workload(
        weight_bytes=getattr(torch, case.weights_dtype).itemsize,
        compute_bytes=compute_dtype(case.dtype, device).itemsize,
        num_trainable=sum(size for name, size in sizes.items() if parameters[name].requires_grad),
        tokens_per_microbatch=case.tokens,
        max_sequence_tokens=case.length,
        chunk_elements=CHUNK_ELEMENTS,
        keeps_reference=False,
        gradient_checkpointing=case.checkpointing,
        max_plain_area=PLAIN_MAX_AREA if device.type == "cpu" else 0,
        fused_decoder=device.type == "cpu" and case.stage is None and not case.checkpointing and not case.lora,
        decode_rows=0,
        division=None if case.stage is None else Division(case.stage, case.ranks),
    )
    return measured, forecast(shape, work).peak


def update(case: Case, device: torch.device) -> torch.nn.Module:
    """Build a model of random weights and update it twice."""
    config = Qwen2Config(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=3 * case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // 64,
        num_key_value_heads=max(1, case.hidden // 128),
        tie_word_embeddings=True,
    )
    settings = ModelConfig(
        path="random",
        dtype=case.dtype,
        weights_dtype=case.weights_dtype,
        device=device.type,
        gradient_checkpointing=case.checkpointing,
        lora=LoraConfig() if case.lora else None,
    )
    deepspeed = None if case.stage is None else DeepSpeedConfig(zero_stage=case.stage)
    with joined_ranks(SftConfig(model=settings, data=DataConfig(path="none"), deepspeed=deepspeed)) as ranks:
        loaded = prepare_model(Qwen2ForCausalLM(config), None, settings, device=device)
        if deepspeed is None:
            policy = TorchPolicy(loaded, optimizer=OptimizerConfig())
        else:
            policy = DeepSpeedPolicy(loaded, optimizer=OptimizerConfig(), config=deepspeed, ranks=ranks)
        generator = torch.Generator().manual_seed(0)
        count, length = case.tokens // case.length, case.length
        samples = [
            TrainSample(
                token_ids=tuple(torch.randint(0, case.vocabulary, (length,), generator=generator).tolist()),
                loss_mask=(False,) + (True,) * (length - 1),
                behavior_logprobs=(0.0,) * length,
                advantages=(1.0,) * length,
                policy_version=0,
                group_index=index,
            )
            for index in range(count)
        ]
        num_sequences = 2 * count * ranks.size
        totals = Totals(tokens=num_sequences * (length - 1), sequences=num_sequences, max_new_tokens=length)
        minibatch = MiniBatch((build_microbatch(samples, device=device),) * 2, totals)
        for _ in range(2):
            policy.update(Term(minibatch, CrossEntropyObjective()))
    return loaded.model


def peak_of(work: Callable[[], torch.nn.Module], device: torch.device) -> tuple[int, torch.nn.Module]:
    """Run something and return the largest number of bytes that tensors held meanwhile."""
    if device.type == "cuda":
        result = work()
        return torch.cuda.max_memory_allocated(), result
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = work()
    live = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak, result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        outcome = measure(Case(**json.loads(sys.argv[1])))
        Path(sys.argv[2], f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(outcome))
    else:
        main()
