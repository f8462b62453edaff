"""The one-file GRPO: its formulas, and that sampling and training see the same probabilities."""

from __future__ import annotations

import re

import pytest
import torch

from recipes.arithmetic import Sum, build_model, build_tokenizer
from recipes.grpo_from_scratch import Settings, completion_logprobs, group_advantages, grpo_loss, main, reward, sample

SHORT = {"group_size": 2, "max_new_tokens": 8}


def test_advantages_compare_a_completion_with_its_siblings() -> None:
    # 1, 0, 0, 0: mean 1/4, sample standard deviation 1/2, so 1.5 and three times -0.5. Equal rewards carry nothing.
    advantages = group_advantages(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1]), group_size=4)
    torch.testing.assert_close(advantages, torch.tensor([1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0]), atol=1e-3, rtol=0)


def test_the_clip_stops_the_gradient_of_a_ratio_that_went_far_enough() -> None:
    logprobs = torch.tensor([[0.5], [0.0]], requires_grad=True)  # ratios e^0.5 = 1.65, beyond 1.2, and 1
    written = torch.ones(2, 1, dtype=torch.bool)
    loss = grpo_loss(logprobs, torch.zeros(2, 1), torch.tensor([1.0, 1.0]), written, clip=0.2)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.tensor([-1.2, -1.0]))
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0], [-1.0]]))


def test_padding_does_not_change_what_a_completion_is_worth() -> None:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    greedy = {**SHORT, "temperature": 0.0, "generator": torch.Generator()}
    together = sample(model, tokenizer, ["12+34=", "123+456="], **greedy)
    alone = sample(model, tokenizer, ["12+34="], **greedy)
    assert together.texts[:2] == alone.texts
    both = completion_logprobs(model, together.tokens, together.written, tokenizer.pad_token_id)
    one = completion_logprobs(model, alone.tokens, alone.written, tokenizer.pad_token_id)
    length = min(both.shape[1], one.shape[1])
    torch.testing.assert_close(both[:2, :length], one[:, :length], atol=0.05, rtol=0)  # bfloat16 where the processor has it


def test_a_token_is_drawn_as_often_as_its_probability_says() -> None:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    generator = torch.Generator().manual_seed(0)
    drawn = sample(model, tokenizer, ["12+34="], group_size=4000, temperature=1.0, max_new_tokens=1, generator=generator)
    first = drawn.tokens[:, -1]
    likeliest = first.mode().values
    row = (first == likeliest).nonzero()[0]
    probability = completion_logprobs(model, drawn.tokens[row], drawn.written[row], tokenizer.pad_token_id).exp().item()
    share = (first == likeliest).float().mean().item()
    # The likeliest of 102 tokens has p of about 0.02: 4 sigma of 4000 draws are 0.009, and choosing the most frequent adds a little.
    assert abs(share - probability) < 0.012


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>x</think><answer>46</answer>", 1.0),
        ("<think>x</think><answer>47</answer>", 0.0),
        ("46", 0.0),
        ("<think>x</think><answer>46</answer>6", 0.0),
    ],
)
def test_only_the_right_answer_in_the_right_form_is_rewarded(text: str, expected: float) -> None:
    assert reward(Sum(12, 34), text) == expected


def test_the_whole_script_runs_and_reports_both_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    main(Settings(warmup_target=0.0, warmup_check_every=2, num_steps=2, prompts_per_step=2, num_validation=4, num_held_out=4))
    last = capsys.readouterr().out.splitlines()[-1]
    number = r"[01]\.\d{3}"
    assert re.fullmatch(rf"held-out accuracy: {number} -> {number} greedy, {number} -> {number} sampled \(4 problems\)", last)
