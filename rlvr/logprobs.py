"""Log-probs and entropies of given tokens from hidden states, without ever holding the logits of all tokens.

Tokens go through the output projection in chunks; the backward recomputes each chunk's logits. Softmax and everything after it is float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_ELEMENTS = 1 << 23  # Logits held at once: 32 MiB of float32.


@dataclass(frozen=True, slots=True)
class OutputHead:
    """From hidden state h to logits: `scale * (h @ weight.T + bias)`, then `softcap * tanh(logits / softcap)` where a softcap is set."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probability of each given token, and the entropy of the distribution it was given under, nats."""

    logprobs: Float[Tensor, " N"]
    entropy: Float[Tensor, " N"] | None


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    target_ids: Int[Tensor, " N"],
    head: OutputHead,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    entropy_gradient: bool = False,
    dtype: torch.dtype | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> TokenLogprobs:
    """Return log softmax(logits / temperature) at the targets, and the entropy if asked for, detached unless `entropy_gradient`.

    `dtype` is the type of the matrix products, the hidden states' by default. Memory grows with `chunk_elements`, not with N * V.
    """
    weight, bias = head.weight, head.bias
    if dtype is not None:
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        logprobs, entropies = _TokenLogprobs.apply(
            hidden,
            weight,
            bias,
            target_ids,
            head.scale / temperature,
            None if head.softcap is None else head.softcap / temperature,
            entropy,
            entropy_gradient,
            max(1, chunk_elements // weight.shape[0]),
        )
    if entropies is not None and not entropy_gradient:
        entropies = entropies.detach()
    return TokenLogprobs(logprobs, entropies)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, scale, softcap, entropy, entropy_gradient, chunk):
        num_tokens = hidden.shape[0]
        logprobs = torch.empty(num_tokens, dtype=torch.float32, device=hidden.device)
        normalizers = torch.empty_like(logprobs)
        entropies = torch.empty_like(logprobs) if entropy else None
        kept = None
        for start in range(0, num_tokens, chunk):
            part = slice(start, min(start + chunk, num_tokens))
            logits = _logits(hidden[part], weight, bias, scale, softcap)
            log_p = torch.log_softmax(logits, -1)
            chosen = targets[part, None]
            logprobs[part] = log_p.gather(1, chosen).squeeze(1)
            normalizers[part] = logits.gather(1, chosen).squeeze(1) - logprobs[part]
            if num_tokens <= chunk:
                kept = logits
            if entropies is not None:
                # H = -sum p log p
                entropies[part] = torch.linalg.vecdot(log_p.exp(), log_p).neg_()
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers, kept, entropies if entropy_gradient else None)
        ctx.scale, ctx.softcap, ctx.chunk = scale, softcap, chunk
        if entropies is not None and not entropy_gradient:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx, grad_logprobs, grad_entropies):
        hidden, weight, bias, targets, normalizers, kept, entropies = ctx.saved_tensors
        num_tokens = hidden.shape[0]
        single = num_tokens <= ctx.chunk
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] and not single else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        for start in range(0, num_tokens, ctx.chunk):
            part = slice(start, min(start + ctx.chunk, num_tokens))
            logits = kept if kept is not None else _logits(hidden[part], weight, bias, ctx.scale, ctx.softcap)
            slope = None if ctx.softcap is None else 1 - (logits / ctx.softcap).square_()
            grad = _logit_gradient(
                logits,
                targets[part],
                normalizers[part],
                grad_logprobs[part],
                None if entropies is None else entropies[part],
                None if entropies is None else grad_entropies[part],
            )
            if slope is not None:
                grad.mul_(slope)
            grad = grad.mul_(ctx.scale) if ctx.scale != 1 else grad
            if grad_bias is not None:
                grad_bias += grad.sum(0)
            grad = grad.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[part])
            if ctx.needs_input_grad[1]:
                product = grad.t() @ hidden[part]
                grad_weight = product if grad_weight is None else grad_weight.add_(product)
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None) -> Float[Tensor, "C V"]:
    """Float32 logits over the temperature; `scale` and `softcap` already carry it."""
    logits = (hidden @ weight.t()).float()
    if bias is not None:
        logits = logits + bias.float()
    if softcap is not None:
        # softcap * tanh(s * x / softcap) / T = c * tanh((s / T) x / c) with c = softcap / T
        return torch.tanh_(logits.mul_(scale / softcap)).mul_(softcap)
    return logits.mul_(scale) if scale != 1 else logits


def _logit_gradient(
    logits: Tensor, targets: Tensor, normalizers: Tensor, grad_logprobs: Tensor, entropies: Tensor | None, grad_entropies: Tensor | None
) -> Float[Tensor, "C V"]:
    """d logprob / d logit = onehot - p;  d entropy / d logit = -p (log p + H)."""
    log_p = logits - normalizers[:, None]
    p = log_p.exp()
    if entropies is None:
        grad = p.mul_(-grad_logprobs[:, None])
    else:
        log_p.add_(entropies[:, None]).mul_(grad_entropies[:, None]).add_(grad_logprobs[:, None])
        grad = p.mul_(log_p).neg_()
    return grad.scatter_add_(1, targets[:, None], grad_logprobs[:, None])
