"""The gradient of an update depends on the samples alone: not on micro-batches, packing, shared prompts, or which code path ran."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.batch import LossInputs, Totals
from tests.unit.policy_models import Surrogate, gradients, make_policy, make_samples, minibatch

RELATIVE = 1e-5


def assert_equal_gradients(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = RELATIVE) -> None:
    """Compare against the largest entry over all parameters: the float32 noise of a sum has the size of its largest terms."""
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    assert actual.keys() == expected.keys() and scale > 1e-3
    for name, gradient in expected.items():
        assert (actual[name] - gradient).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "modules"])
@pytest.mark.parametrize("budget", [1, 30, 60])
def test_gradients_do_not_depend_on_the_micro_batch_split(fused, budget):
    policy = make_policy(fused=fused)
    samples = make_samples()
    whole = gradients(policy, minibatch(samples))
    assert_equal_gradients(gradients(policy, minibatch(samples, tokens_per_microbatch=budget)), whole)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "modules"])
def test_gradients_do_not_depend_on_sharing_prompts(fused):
    policy = make_policy(fused=fused)
    samples = make_samples()
    assert_equal_gradients(gradients(policy, minibatch(samples)), gradients(policy, minibatch(samples, share_prompts=False)))


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3", "mistral_window", "gemma2", "gpt2"])
def test_packed_gradients_equal_padded_ones(family):
    samples = make_samples()
    packed, padded = make_policy(family, attention="packed"), make_policy(family, attention="padded")
    assert (packed.loaded.attention, padded.loaded.attention) == ("packed", "padded")
    expected = gradients(padded, minibatch(samples, share_prompts=False))
    assert_equal_gradients(gradients(packed, minibatch(samples)), expected, tolerance=3e-5)


def test_the_fused_decoder_gives_the_gradients_of_the_models_own_modules():
    for family in ("qwen2", "qwen2_untied", "llama", "mistral_window"):
        fused, modules = make_policy(family), make_policy(family, fused=False)
        assert fused.loaded.fused is not None
        samples = make_samples()
        assert_equal_gradients(gradients(fused, minibatch(samples)), gradients(modules, minibatch(samples)), tolerance=3e-5)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "modules"])
def test_bfloat16_gradients_point_where_float32_ones_do(fused):
    samples = make_samples()
    exact = gradients(make_policy(), minibatch(samples))
    rounded = gradients(make_policy(fused=fused, dtype="bfloat16"), minibatch(samples))
    flat = [torch.cat([g[name].flatten() for name in sorted(g)]) for g in (exact, rounded)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0).item() > 0.999


def test_gradients_do_not_depend_on_checkpointing():
    samples = make_samples()
    recomputed = make_policy(gradient_checkpointing=True)
    assert_equal_gradients(gradients(recomputed, minibatch(samples)), gradients(make_policy(), minibatch(samples)))


class OnlyMasked:
    """Puts weight on masked places only; a correct policy passes none of it on."""

    needs_entropy = True
    needs_reference = False

    def __call__(self, inputs: LossInputs, totals: Totals):
        return torch.where(inputs.mask, 0.0, inputs.logprobs + inputs.entropy).sum(), {}


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16))
def test_masked_tokens_have_exactly_zero_gradient(seed):
    found = gradients(make_policy_once(), minibatch(make_samples(seed=seed)), OnlyMasked())
    assert all(torch.count_nonzero(gradient) == 0 for gradient in found.values())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 80))
def test_values_at_masked_tokens_do_not_matter(seed, budget):
    """Advantages and behavior log-probs of unscored tokens are unspecified: any value gives bit-equal gradients."""
    import dataclasses

    samples = make_samples(seed=seed)
    spoilt = [
        dataclasses.replace(s, advantages=tuple(a if m else 1e9 for a, m in zip(s.advantages, s.loss_mask, strict=True))) for s in samples
    ]
    policy = make_policy_once()
    expected = gradients(policy, minibatch(samples, tokens_per_microbatch=budget), Surrogate(0.0))
    actual = gradients(policy, minibatch(spoilt, tokens_per_microbatch=budget), Surrogate(0.0))
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


_kept = []


def make_policy_once():
    if not _kept:
        _kept.append(make_policy())
    return _kept[0]
