"""The attention function registered with transformers, and packed attention against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlvr.attention import IMPLEMENTATION, UnsupportedAttention, register
from rlvr.batching import build_microbatch
from rlvr.policy.packed_attention import PackedAttention
from tests.unit.policy_models import build, make_samples


def attention_function():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    register()
    return ALL_ATTENTION_FUNCTIONS[IMPLEMENTATION]


@pytest.mark.parametrize("family", ["qwen2", "mistral_window", "gemma2"])
def test_without_a_plan_a_model_gives_its_eager_logits(family):
    model = build(family)
    ids = torch.randint(3, 40, (2, 17), generator=torch.Generator().manual_seed(0))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        register()
        model.set_attn_implementation(IMPLEMENTATION)
        torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_attention_sinks_are_refused_rather_than_ignored():
    states = torch.randn(1, 2, 3, 4)
    with pytest.raises(UnsupportedAttention, match="model.attention=padded"):
        attention_function()(nn.Module(), states, states, states, None, s_aux=torch.zeros(2))


def by_definition(query, key, value, layout, scaling, window, softcap):
    """One query at a time, in float64: softmax over the keys its row lets it see."""
    query, key, value = (t[0].double() for t in (query, key, value))
    out = torch.zeros(query.shape[1], query.shape[0], value.shape[2], dtype=torch.float64)
    repeats = query.shape[0] // key.shape[0]
    for row in range(len(layout.query_start)):
        keys = layout.key_index[row][layout.key_mask[row]]
        for step, place in enumerate(layout.query_index[row][layout.query_mask[row]]):
            position = int(layout.query_start[row]) + step
            seen = keys[max(0, position + 1 - window) if window else 0 : position + 1]
            for head in range(query.shape[0]):
                scores = key[head // repeats, seen] @ query[head, place] * scaling
                scores = softcap * torch.tanh(scores / softcap) if softcap else scores
                out[place, head] = torch.softmax(scores, 0) @ value[head // repeats, seen]
    return out.float()


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "kernel"])
@pytest.mark.parametrize("window", [None, 4], ids=["whole", "window"])
@pytest.mark.parametrize("softcap", [None, 1.5], ids=["no cap", "cap"])
def test_packed_attention_and_its_gradients_follow_the_definition(plain, window, softcap):
    samples = make_samples(num_groups=2)
    batch = build_microbatch(samples)
    num_tokens = len(batch.token_ids)
    draw = torch.Generator().manual_seed(0)
    # Four query heads on two key heads of size 8, with values of size 6.
    shapes = [(1, 4, num_tokens, 8), (1, 2, num_tokens, 8), (1, 2, num_tokens, 6)]
    states = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    plan = PackedAttention(batch.layout, num_tokens=num_tokens)
    plan.plain = plain
    actual = plan.attend(0, *states, scaling=0.5, sliding_window=window, softcap=softcap)
    expected = by_definition(*states, batch.layout, 0.5, window, softcap).unsqueeze(0)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(expected.shape, generator=draw)
    grads = [torch.autograd.grad((out * direction).sum(), states) for out in (actual, expected)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_rows_of_very_different_length_are_computed_in_separate_blocks():
    lengths = sorted(len(s.token_ids) for s in make_samples())
    plan = PackedAttention(build_microbatch(make_samples(), share_prompts=False).layout, num_tokens=sum(lengths) - len(lengths))
    assert lengths[0] * 3 < lengths[-1]
    assert len(plan.blocks) > 1
