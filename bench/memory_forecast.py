"""Compares forecasts of peak memory with the measured peak of two updates, one process per configuration.

Run: python bench/memory_forecast.py. Numbers of a run on CPU are in docs/memory.md. On CPU the peak is that of the process's resident
memory over what it was after a tiny update; on CUDA, of the memory torch allocated.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlvr.batch import MiniBatch, Totals
from rlvr.batching import build_microbatch
from rlvr.config import ModelConfig, OptimizerConfig
from rlvr.logprobs import CHUNK_ELEMENTS
from rlvr.losses import CrossEntropyObjective
from rlvr.memory_forecast import Workload, forecast, format_bytes, model_shape
from rlvr.policy.loading import compute_dtype, prepare_model
from rlvr.policy.protocol import Term
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.types import TrainSample

MAX_PLAIN_KEYS = 1448  # The square root of rlvr.policy.packed_attention.PLAIN_MAX_AREA.


@dataclass(frozen=True)
class Case:
    """One configuration: `tokens` in the micro-batch, in sequences of `length`."""

    hidden: int
    layers: int
    vocabulary: int
    tokens: int
    length: int
    dtype: str
    checkpointing: bool = False


CASES = (
    Case(512, 6, 128, 4096, 256, "float32"),
    Case(512, 6, 128, 4096, 256, "bfloat16"),
    Case(512, 12, 128, 4096, 256, "bfloat16"),
    Case(512, 6, 128, 4096, 2048, "bfloat16"),
    Case(256, 4, 30000, 4096, 256, "bfloat16"),
    Case(512, 6, 128, 4096, 256, "bfloat16", checkpointing=True),
    Case(512, 12, 128, 4096, 256, "bfloat16", checkpointing=True),
)


def main() -> None:
    print("| hidden x layers | vocabulary | tokens (length) | type | checkpointing | measured | forecast | forecast / measured |")
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        done = subprocess.run([sys.executable, __file__, json.dumps(asdict(case))], capture_output=True, text=True, check=True)
        measured, predicted = json.loads(done.stdout.splitlines()[-1])
        sizes = f"{case.hidden} x {case.layers} | {case.vocabulary} | {case.tokens} ({case.length}) | {case.dtype}"
        results = f"{format_bytes(measured)} | {format_bytes(predicted)} | {predicted / measured:.2f}"
        print(f"| {sizes} | {'yes' if case.checkpointing else 'no'} | {results} |", flush=True)


def measure(case: Case) -> tuple[int, int]:
    """Return measured and forecast peak in bytes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    update(Case(128, 1, 100, 64, 32, case.dtype), device)
    base = peak(device) if device.type == "cpu" else 0
    model = update(case, device)
    measured = peak(device) - base
    parameters = dict(model.named_parameters())
    matrices = sum(p.numel() for name, p in parameters.items() if p.ndim == 2 and "embed_tokens" not in name)
    shape = model_shape(model.config, sum(p.numel() for p in parameters.values()), matrices)
    work = Workload(
        weight_bytes=4,
        compute_bytes=compute_dtype(case.dtype, device).itemsize,
        num_trainable=shape.num_parameters,
        tokens_per_microbatch=case.tokens,
        max_sequence_tokens=case.length,
        chunk_elements=CHUNK_ELEMENTS,
        keeps_reference=False,
        gradient_checkpointing=case.checkpointing,
        max_plain_keys=MAX_PLAIN_KEYS if device.type == "cpu" else 0,
        decode_rows=0,
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
    settings = ModelConfig(path="random", dtype=case.dtype, device=device.type, gradient_checkpointing=case.checkpointing)
    loaded = prepare_model(Qwen2ForCausalLM(config), None, settings, device=device)
    policy = TorchPolicy(loaded, optimizer=OptimizerConfig())
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
    totals = Totals(tokens=count * (length - 1), sequences=count, max_new_tokens=length)
    minibatch = MiniBatch((build_microbatch(samples, device=device),), totals)
    for _ in range(2):
        policy.update(Term(minibatch, CrossEntropyObjective()))
    return loaded.model


def peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
    else:
        main()
