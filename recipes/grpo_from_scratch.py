"""GRPO in one file: plain torch, a transformers module, and nothing of rlvr's trainer.

A model built from nothing learns to add. First a short supervised warm-up on worked demonstrations, until it solves three tenths of the
validation problems; then reinforcement learning from a reward that only says whether the answer is right (GRPO, arXiv:2402.03300).
`arithmetic_grpo.py` runs the same task through the library, which is faster, resumable and watched.

Run: python -m recipes.grpo_from_scratch [seed]
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, Qwen2ForCausalLM, Qwen2Tokenizer

from recipes.arithmetic import Sum, build_model, build_tokenizer, distinct_sums, sums


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed, with values that were measured to work (docs/recipes.md)."""

    seed: int = 0
    digits: tuple[int, int] = (2, 3)
    max_new_tokens: int = 48
    # Supervised warm-up.
    warmup_learning_rate: float = 1e-3
    warmup_batch: int = 64
    warmup_check_every: int = 10
    warmup_target: float = 0.3  # stopped too early, reinforcement learning finds too little to reinforce
    # Reinforcement learning.
    num_steps: int = 400
    prompts_per_step: int = 32
    group_size: int = 8
    learning_rate: float = 3e-4  # 1e-3 collapses
    final_learning_rate: float = 3e-5
    ramp_steps: int = 10
    clip: float = 0.2
    max_grad_norm: float = 1.0
    # Evaluation.
    num_validation: int = 256
    num_held_out: int = 500


@dataclass(frozen=True)
class Rollouts:
    """Completions of a batch of prompts, group by group. B = prompts x group size; P and L are the longest prompt and completion."""

    tokens: Int[Tensor, "B P_plus_L"]  # prompts padded on the left, completions on the right
    written: Bool[Tensor, "B L"]  # True on tokens the policy wrote, the end-of-sequence token included
    texts: list[str]


def bfloat16_where_fast() -> AbstractContextManager[None]:
    """Multiply matrices in bfloat16 where the processor does so natively; weights and everything else stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def positions(attention_mask: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Count positions from the first real token, so that padding on the left shifts nothing."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def sample(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    questions: Sequence[str],
    *,
    group_size: int,
    temperature: float,
    max_new_tokens: int,
    generator: torch.Generator,
) -> Rollouts:
    """Draw `group_size` completions of each question; temperature 0 takes the likeliest token.

    Each prompt is read once and its key-value cache repeated for the group; a row that has ended leaves the batch, so the last stragglers
    do not cost a full batch a token.
    """
    prompt = tokenizer(list(questions), return_tensors="pt", padding=True)  # padded on the left
    mask, num_rows = prompt["attention_mask"], len(questions) * group_size
    tokens = torch.full((num_rows, max_new_tokens), tokenizer.pad_token_id)
    written = torch.zeros(num_rows, max_new_tokens, dtype=torch.bool)
    active = torch.arange(num_rows)
    with bfloat16_where_fast():
        out = model(
            input_ids=prompt["input_ids"],
            attention_mask=mask,
            position_ids=positions(mask),
            past_key_values=DynamicCache(config=model.config),
            logits_to_keep=1,
        )
        cache = out.past_key_values
        cache.batch_repeat_interleave(group_size)
        mask = mask.repeat_interleave(group_size, 0)
        logits = out.logits[:, -1].float().repeat_interleave(group_size, 0)
        for t in range(max_new_tokens):
            if temperature == 0:
                drawn = logits.argmax(-1)
            else:
                drawn = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
            tokens[active, t], written[active, t] = drawn, True
            going_on = (drawn != tokenizer.eos_token_id).nonzero()[:, 0]
            if len(going_on) == 0 or t + 1 == max_new_tokens:
                break
            if len(going_on) < len(active):
                active, drawn, mask = active[going_on], drawn[going_on], mask[going_on]
                cache.batch_select_indices(going_on)
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], 1)
            out = model(input_ids=drawn[:, None], attention_mask=mask, position_ids=positions(mask)[:, -1:], past_key_values=cache)
            logits = out.logits[:, -1].float()
    length = t + 1
    texts = tokenizer.batch_decode(tokens[:, :length], skip_special_tokens=True)
    tokens = torch.cat([prompt["input_ids"].repeat_interleave(group_size, 0), tokens[:, :length]], 1)
    return Rollouts(tokens, written[:, :length], texts)


def completion_logprobs(
    model: Qwen2ForCausalLM, tokens: Int[Tensor, "B P_plus_L"], written: Bool[Tensor, "B L"], pad_token_id: int
) -> Float[Tensor, "B L"]:
    """Return log p(token | tokens before it) of each completion token, in nats. Values where `written` is False mean nothing."""
    length = written.shape[1]
    mask = torch.cat([tokens[:, :-length] != pad_token_id, written], 1).long()
    with bfloat16_where_fast():
        hidden = model.model(input_ids=tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False).last_hidden_state
        # The token at position t is predicted from the hidden state at t - 1.
        logits = model.lm_head(hidden[:, -length - 1 : -1])
    return logits.float().log_softmax(-1).gather(-1, tokens[:, -length:, None]).squeeze(-1)


def reward(problem: Sum, text: str) -> float:
    """Return 1 for the right answer in the right form, else 0: no credit for the reasoning, which the policy may write as it likes."""
    match = re.fullmatch(r"<think>[^<]*</think><answer>([^<]*)</answer>", text)
    return float(match is not None and match[1] == problem.answer)


def group_advantages(rewards: Float[Tensor, " B"], group_size: int) -> Float[Tensor, " B"]:
    """Compare each completion with its siblings: reward minus group mean, over group standard deviation (arXiv:2402.03300, section 4.1.2).

    Example: rewards 1, 0, 0, 0 give 1.5, -0.5, -0.5, -0.5. Equal rewards give zeros: the group teaches nothing.
    """
    grouped = rewards.view(-1, group_size)
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (grouped.std(1, keepdim=True) + 1e-4)).view(-1)


def grpo_loss(
    logprobs: Float[Tensor, "B L"],
    old_logprobs: Float[Tensor, "B L"],
    advantages: Float[Tensor, " B"],
    written: Bool[Tensor, "B L"],
    *,
    clip: float,
) -> Float[Tensor, " B"]:
    """Return each sequence's clipped surrogate, averaged over its tokens. With one update a batch the ratio is 1 and the clip idle."""
    ratio = (logprobs - old_logprobs).exp()
    advantage = advantages[:, None]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -(surrogate * written).sum(1) / written.sum(1)


def supervised_loss(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: Sequence[Sum]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the demonstrations' tokens."""
    prompts = tokenizer([p.question for p in problems], return_tensors="pt", padding=True)["input_ids"]
    answers = tokenizer([p.demonstration + tokenizer.eos_token for p in problems], return_tensors="pt", padding=True, padding_side="right")
    written = answers["attention_mask"].bool()
    tokens = torch.cat([prompts, answers["input_ids"]], 1)
    logprobs = completion_logprobs(model, tokens, written, tokenizer.pad_token_id)
    return -logprobs[written].mean()


def accuracy(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: Sequence[Sum], settings: Settings, *, temperature: float
) -> float:
    """Return the share of problems solved by one completion each."""
    generator = torch.Generator().manual_seed(settings.seed)
    options = {"group_size": 1, "temperature": temperature, "max_new_tokens": settings.max_new_tokens, "generator": generator}
    texts = sample(model, tokenizer, [p.question for p in problems], **options).texts
    return sum(reward(p, text) for p, text in zip(problems, texts, strict=True)) / len(problems)


def step(loss: Float[Tensor, ""], model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, *, max_grad_norm: float, rate: float) -> None:
    """Take one clipped gradient step at the given learning rate."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def warm_up(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, settings: Settings, log: Callable[[str], None]) -> None:
    """Imitate demonstrations until enough *validation* problems are solved; the held-out problems have no say in when to stop."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    stream = sums("train", seed=settings.seed, digits=settings.digits)
    validation = distinct_sums("validation", settings.num_validation, seed=settings.seed, digits=settings.digits)
    for index in range(1, 2001):
        loss = supervised_loss(model, tokenizer, list(islice(stream, settings.warmup_batch)))
        rate = settings.warmup_learning_rate * min(1.0, index / settings.ramp_steps)
        step(loss, model, optimizer, max_grad_norm=settings.max_grad_norm, rate=rate)
        if index % settings.warmup_check_every == 0:
            solved = accuracy(model, tokenizer, validation, settings, temperature=1.0)
            log(f"warm-up step {index:4d}  loss {loss.item():.3f}  validation accuracy {solved:.3f}")
            if solved >= settings.warmup_target:
                return
    raise RuntimeError(
        f"the warm-up did not reach {settings.warmup_target} in {index} steps: raise warmup_learning_rate or lower the target"
    )


def reinforce(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, settings: Settings, log: Callable[[str], None]) -> None:
    """The algorithm: sample groups, reward, compare within the group, one policy-gradient step; again."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    stream = sums("train", seed=settings.seed + 1, digits=settings.digits)
    generator = torch.Generator().manual_seed(settings.seed)
    size = settings.group_size
    for index in range(settings.num_steps):
        problems = list(islice(stream, settings.prompts_per_step))
        questions = [p.question for p in problems]
        options = {"group_size": size, "temperature": 1.0, "max_new_tokens": settings.max_new_tokens, "generator": generator}
        rollouts = sample(model, tokenizer, questions, **options)
        rewards = torch.tensor([reward(problems[row // size], text) for row, text in enumerate(rollouts.texts)])
        advantages = group_advantages(rewards, size)
        # Rows of zero advantage have zero gradient: leaving them out changes nothing but the time, as the divisor stays the whole batch.
        kept = advantages.nonzero()[:, 0]
        if len(kept) > 0:
            written = rollouts.written[kept]
            logprobs = completion_logprobs(model, rollouts.tokens[kept], written, tokenizer.pad_token_id)
            loss = grpo_loss(logprobs, logprobs.detach(), advantages[kept], written, clip=settings.clip).sum() / len(rewards)
            progress = index / settings.num_steps
            rate = settings.learning_rate + progress * (settings.final_learning_rate - settings.learning_rate)
            rate *= min(1.0, (index + 1) / settings.ramp_steps)
            step(loss, model, optimizer, max_grad_norm=settings.max_grad_norm, rate=rate)
        if (index + 1) % 10 == 0:
            log(f"step {index + 1:4d}  reward {rewards.mean():.3f}  groups that teach {len(kept) // size}/{len(problems)}")


def main(settings: Settings) -> None:
    """Build, warm up, reinforce, and print how accuracy on the held-out problems moved."""
    started = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=settings.seed)
    model.set_attn_implementation("eager")  # for short sequences in bfloat16, torch's fused attention has a slow backward pass on CPU
    held_out = distinct_sums("held_out", settings.num_held_out, seed=0, digits=settings.digits)
    warm_up(model, tokenizer, settings, log)
    before = [accuracy(model, tokenizer, held_out, settings, temperature=t) for t in (0.0, 1.0)]
    log(f"held-out accuracy after the warm-up: {before[0]:.3f} greedy, {before[1]:.3f} sampled")
    reinforce(model, tokenizer, settings, log)
    after = [accuracy(model, tokenizer, held_out, settings, temperature=t) for t in (0.0, 1.0)]
    print(
        f"held-out accuracy: {before[0]:.3f} -> {after[0]:.3f} greedy, {before[1]:.3f} -> {after[1]:.3f} sampled ({len(held_out)} problems)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    main(Settings(seed=parser.parse_args().seed))
