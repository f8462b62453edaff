"""Time of one policy update (forward, backward, AdamW) against the plain way: padded rows through transformers, autocast, full logits.

Interleaved, one thread, CPU seconds; prints medians in milliseconds and ratios. Each round has samples of its own, as training has: the
matrix library builds a kernel for each shape it sees first. Run: python -m bench.train_step [T|A|B] [equal|ragged] [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rlvr.batch import LossInputs, Totals
from rlvr.batching import pack, totals_of
from rlvr.config import ModelConfig, OptimizerConfig
from rlvr.policy.loading import prepare_model
from rlvr.policy.protocol import Term
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.types import TrainSample

SHAPES = {"T": (128, 4, 4), "A": (256, 4, 4), "B": (512, 6, 8)}
ROUNDS = 7


class PolicyGradient:
    """The smallest objective: minus the advantage-weighted log-prob, token mean."""

    needs_entropy = False
    needs_reference = False

    def __call__(self, inputs: LossInputs, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = (inputs.logprobs - inputs.old_logprobs).exp()
        loss = torch.where(inputs.mask, -inputs.advantages * ratio, 0.0)
        return loss.sum() / totals.tokens, {}


def build_model(shape: str):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hidden, layers, heads = SHAPES[shape]
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=128,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            tie_word_embeddings=True,
            max_position_embeddings=512,
        ),
    )


def make_samples(shape: str, ragged: bool, seed: int = 0) -> list[TrainSample]:
    """T: 256 rows of 32 tokens; A and B: 64 rows of 104; ragged draws completions from 4 tokens to the longest."""
    rows, prompt, completion = (256, 8, 24) if shape == "T" else (64, 8, 96)
    draw = torch.Generator().manual_seed(seed)
    samples = []
    for row in range(rows):
        length = int(torch.randint(4, 80 if completion == 96 else completion, (1,), generator=draw)) if ragged else completion
        group = torch.Generator().manual_seed(row // 8)
        ids = torch.randint(0, 128, (prompt,), generator=group).tolist() + torch.randint(0, 128, (length,), generator=draw).tolist()
        samples.append(
            TrainSample(
                token_ids=tuple(ids),
                loss_mask=(False,) * prompt + (True,) * length,
                behavior_logprobs=(0.0,) * len(ids),
                advantages=(0.0,) * prompt + (1.0 if row % 2 else -1.0,) * length,
                policy_version=0,
                group_index=row // 8,
            )
        )
    return samples


def packed_step(
    shape: str, dtype: str, tokens_per_microbatch: int, share_prompts: bool, *, fused: bool = True
) -> Callable[[list[TrainSample]], None]:
    loaded = prepare_model(build_model(shape), None, ModelConfig(path="none", dtype=dtype, device="cpu"))
    if not fused:
        loaded = replace(loaded, fused=None)
    policy = TorchPolicy(loaded, optimizer=OptimizerConfig(), num_steps=1000)

    def step(samples: list[TrainSample]) -> None:
        totals = totals_of(samples, max_new_tokens=96)
        minibatch = pack(samples, totals=totals, tokens_per_microbatch=tokens_per_microbatch, share_prompts=share_prompts)
        policy.update(Term(minibatch, PolicyGradient()))

    return step


def padded_step(shape: str, dtype: torch.dtype) -> Callable[[list[TrainSample]], None]:
    model = build_model(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(samples: list[TrainSample]) -> None:
        longest = max(len(s.token_ids) for s in samples)
        ids = torch.tensor([[*s.token_ids, *[0] * (longest - len(s.token_ids))] for s in samples])
        present = torch.tensor([[1] * len(s.token_ids) + [0] * (longest - len(s.token_ids)) for s in samples])
        mask = torch.tensor([[*s.loss_mask, *[False] * (longest - len(s.loss_mask))] for s in samples])[:, 1:]
        advantages = torch.tensor([[*s.advantages, *[0.0] * (longest - len(s.advantages))] for s in samples])[:, 1:]
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=present, use_cache=False).logits[:, :-1].float()
            logprobs = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None]).squeeze(2)
            loss = torch.where(mask, -advantages * (logprobs - logprobs.detach()).exp(), 0.0).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def compare(steps: dict[str, Callable[[list[TrainSample]], None]], rounds: list[list[TrainSample]]) -> dict[str, float]:
    """Run the steps in turn over each round's samples and return the median CPU milliseconds of each, the first two rounds left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for samples in rounds:
        for name, step in steps.items():
            start = time.process_time()
            step(samples)
            seconds[name].append(time.process_time() - start)
    return {name: 1e3 * statistics.median(values[2:]) for name, values in seconds.items()}


def main(shape: str = "T", lengths: str = "equal", num_rounds: str = "8") -> None:
    torch.set_num_threads(1)
    rounds = [make_samples(shape, lengths == "ragged", seed) for seed in range(int(num_rounds) + 2)]
    steps = {
        "transformers, padded, float32": padded_step(shape, torch.float32),
        "transformers, padded, bfloat16": padded_step(shape, torch.bfloat16),
        "packed, float32": packed_step(shape, "float32", 4096, True),
        "packed, bfloat16, the model's modules": packed_step(shape, "bfloat16", 4096, True, fused=False),
        "packed, bfloat16, prompts repeated": packed_step(shape, "bfloat16", 4096, False),
        **{f"packed, bfloat16, {tokens} tokens": packed_step(shape, "bfloat16", tokens, True) for tokens in (2048, 4096, 8192)},
    }
    medians = compare(steps, rounds)
    print(f"{shape} {lengths}: {len(rounds[0])} rows, {sum(len(s.token_ids) for s in rounds[0])} tokens, one thread, CPU ms")
    fastest = min(medians.values())
    for name, value in medians.items():
        print(f"{name:40s} {value:8.0f}   {value / fastest:5.2f}x")


if __name__ == "__main__":
    main(*sys.argv[1:])
