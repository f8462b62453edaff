"""Chunked log-probs against the plain formula, their gradients, and the shape of what is held."""

from __future__ import annotations

import math

import pytest
import torch

from rlvr.logprobs import OutputHead, token_logprobs


def inputs(num_tokens: int = 11, hidden: int = 6, vocabulary: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(num_tokens, hidden, generator=draw, dtype=torch.float32).requires_grad_()
    weight = torch.randn(vocabulary, hidden, generator=draw).requires_grad_()
    bias = torch.randn(vocabulary, generator=draw).requires_grad_()
    return states, weight, bias, torch.randint(0, vocabulary, (num_tokens,), generator=draw)


def plain(states, weight, bias, targets, *, scale=1.0, softcap=None, temperature=1.0):
    logits = scale * (states @ weight.t() + (0 if bias is None else bias))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_p = torch.log_softmax(logits / temperature, -1)
    return log_p.gather(1, targets[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(-1)


def test_two_equal_logits_give_log_one_half_and_entropy_log_two():
    # Hidden state 0 makes every logit 0: p = 1/2 each, entropy = log 2.
    scored = token_logprobs(torch.zeros(1, 3), torch.tensor([1]), OutputHead(torch.randn(2, 3)), entropy=True)
    assert scored.logprobs.item() == pytest.approx(-math.log(2))
    assert scored.entropy.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("chunk", [1, 3, 11, 100], ids=lambda c: f"{c} tokens a chunk")
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"scale": 0.3}, {"softcap": 2.0, "temperature": 0.5, "scale": 1.5}],
    ids=["plain", "temperature", "scale", "softcap"],
)
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
def test_values_and_gradients_equal_the_plain_formula_for_any_chunk(chunk, options, with_bias):
    states, weight, bias, targets = inputs()
    bias = bias if with_bias else None
    leaves = [t for t in (states, weight, bias) if t is not None]
    mix = torch.linspace(-1, 1, len(targets))
    logprobs, entropy = plain(states, weight, bias, targets, **options)
    expected = torch.autograd.grad((logprobs * mix + entropy * mix.flip(0)).sum(), leaves)
    head = OutputHead(weight, bias, options.get("scale", 1.0), options.get("softcap"))
    scored = token_logprobs(
        states,
        targets,
        head,
        temperature=options.get("temperature", 1.0),
        entropy=True,
        entropy_gradient=True,
        chunk_elements=chunk * weight.shape[0],
    )
    torch.testing.assert_close(scored.logprobs, logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scored.entropy, entropy, atol=1e-5, rtol=1e-5)
    actual = torch.autograd.grad((scored.logprobs * mix + scored.entropy * mix.flip(0)).sum(), leaves)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_entropy_has_no_gradient_unless_asked():
    states, weight, _, targets = inputs()
    assert not token_logprobs(states, targets, OutputHead(weight), entropy=True).entropy.requires_grad


def test_no_tensor_of_tokens_by_vocabulary_is_made():
    # 64 tokens by 5000 words would be 320 000 elements; a chunk is 8 tokens, 40 000 elements, and the weight's gradient 5000 * 4.
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    states, weight, _, targets = inputs(64, 4, 5000)
    with Watch():
        token_logprobs(states, targets, OutputHead(weight), chunk_elements=8 * 5000).logprobs.sum().backward()
    assert weight.grad is not None
    assert largest == 8 * 5000
