"""What a loss and its backward hold grows with the tokens, not with their square, and not with the vocabulary beyond a chunk of logits."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch.profiler import ProfilerActivity, profile

from rlvr.batching import pack, totals_of
from rlvr.config import ModelConfig, OptimizerConfig
from rlvr.logprobs import CHUNK_ELEMENTS
from rlvr.losses import CrossEntropyObjective
from rlvr.policy.loading import prepare_model
from rlvr.policy.protocol import Term
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.types import TrainSample

HIDDEN, PROMPT = 64, 100
LENGTHS = (2048, 3072, 4096, 6144)
"""Long enough for the fused attention kernel, which keeps no weights; of shorter rows the weights are kept, up to 2^21 a row and head."""


def peak_bytes(vocabulary: int, length: int) -> int:
    """The largest number of bytes in tensors while the gradient of two completions behind one prompt is taken, weights not counted."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16384,
    )
    loaded = prepare_model(hf.LlamaForCausalLM(config), None, ModelConfig(path="in memory", dtype="float32", device="cpu"))
    policy = TorchPolicy(loaded, optimizer=OptimizerConfig())
    samples = []
    for extra in (0, 7):
        ids = tuple(torch.randint(0, vocabulary, (length + extra,)).tolist())
        ids = (1,) * PROMPT + ids[PROMPT:]
        mask = (False,) * PROMPT + (True,) * (len(ids) - PROMPT)
        samples.append(TrainSample(ids, mask, (0.0,) * len(ids), (1.0,) * len(ids), policy_version=0, group_index=0))
    packed = pack(samples, totals=totals_of(samples, max_new_tokens=length), tokens_per_microbatch=10**9)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        policy.accumulate_gradients(Term(packed, CrossEntropyObjective()))
    live = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def test_memory_grows_linearly_with_the_length_of_sequences():
    peaks = [peak_bytes(128, length) for length in LENGTHS]
    points = list(zip(LENGTHS, peaks, strict=True))
    slopes = [(b - a) / (m - n) for (n, a), (m, b) in zip(points[:-1], points[1:], strict=True)]
    print("bytes by length", dict(points), "bytes a token", slopes)
    assert max(slopes) < 1.25 * min(slopes)


@pytest.mark.parametrize("vocabulary", [32_000, 128_000])
def test_memory_does_not_grow_with_the_vocabulary_beyond_the_chunk(vocabulary):
    small = 8_000
    assert 2 * 1024 * small > CHUNK_ELEMENTS  # Even the small one fills a chunk.
    grown = peak_bytes(vocabulary, 1024) - peak_bytes(small, 1024)
    # The weights' own gradients: embedding, projection, and the projection's before it is added.
    gradients = 3 * (vocabulary - small) * HIDDEN * 4
    print(f"grown by {grown / 2**20:.0f} MiB, gradients {gradients / 2**20:.0f} MiB")
    assert grown < 1.1 * gradients
    assert grown < 0.1 * 2 * 1024 * (vocabulary - small) * 4  # Whole logits would be more than ten times that.
