"""The arithmetic task: problems, demonstrations, splits, tokenizer and model."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.arithmetic import EOS, Sum, build_model, build_tokenizer, distinct_sums, steps_are_right, with_other_digits
from rlvr.types import Completion
from verifiers.exact_match import ExactMatch
from verifiers.steps import split_steps, steps_of
from verifiers.types import Problem


@pytest.mark.parametrize(
    ("problem", "demonstration"),
    [
        (Sum(85, 347), "<think>5+7+0=12 8+4+1=13 0+3+1=04</think><answer>432</answer>"),
        (Sum(12, 34), "<think>2+4+0=06 1+3+0=04</think><answer>46</answer>"),
        (Sum(99, 901), "<think>9+1+0=10 9+0+1=10 0+9+1=10</think><answer>1000</answer>"),
    ],
)
def test_a_demonstration_writes_out_every_column_and_carry_from_the_right(problem: Sum, demonstration: str) -> None:
    assert problem.demonstration == demonstration


def test_the_columns_last_digits_spell_the_answer_behind_the_last_carry() -> None:
    for problem in distinct_sums("train", 500, seed=3):
        columns = problem.demonstration.removeprefix("<think>").split("</think>")[0].split(" ")
        # 5+7+0=12 8+4+1=13 0+3+1=04: the last carry 0, then 4, 3, 2.
        assert int(columns[-1][-2] + "".join(column[-1] for column in reversed(columns))) == int(problem.answer)


def test_no_problem_stands_in_two_splits() -> None:
    splits = {split: set(distinct_sums(split, 2000, seed=seed)) for seed, split in enumerate(("train", "validation", "held_out"))}
    assert not splits["train"] & splits["held_out"]
    assert not splits["train"] & splits["validation"]
    assert not splits["validation"] & splits["held_out"]


def test_more_problems_than_there_are_is_an_error_not_an_endless_search() -> None:
    # 90 * 90 sums of two digits, 80 % of them for training: 6480.
    with pytest.raises(ValueError, match="about 6480"):
        distinct_sums("train", 6000, seed=0, digits=(2, 2))


def test_operands_have_each_length_about_equally_often() -> None:
    problems = distinct_sums("train", 2000, seed=0)
    share_short = sum(problem.left < 100 for problem in problems) / len(problems)
    # Half before duplicates are dropped; two short operands repeat more often (8100 such problems), so a little less. 3 sigma = 3.4 %.
    assert 0.42 < share_short < 0.53


def test_the_tokenizer_survives_saving_beside_the_model(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "85+347=" + Sum(85, 347).demonstration
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded(text).input_ids
    # Every tag is one token, every other character one.
    assert len(ids) == len(text) - sum(len(tag) - 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    assert loaded.decode([*ids, loaded.eos_token_id], skip_special_tokens=True) == text
    assert (loaded.eos_token, len(loaded)) == (EOS, 102)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() < 900_000


def test_the_seed_alone_decides_the_model() -> None:
    tokenizer = build_tokenizer()
    first, again, other = (next(build_model(tokenizer, seed=seed).parameters()) for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)


def test_the_verifier_accepts_the_demonstration_and_refuses_a_wrong_sum() -> None:
    problem = Sum(85, 347)

    def completion(text: str) -> Completion:
        return Completion(text, (1,), (0.0,), "stop", 0, 0)

    right, wrong = completion(problem.demonstration), completion(problem.demonstration.replace("432", "433"))
    question = Problem("0", ({"role": "user", "content": problem.question},), {"answer": problem.answer})
    verdicts = asyncio.run(ExactMatch(extraction="strict")(question, [right, wrong]))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]


def labels(problem: Sum, response: str) -> list[bool]:
    return steps_are_right(problem, steps_of(response, split_steps(response, " ")))


def test_every_step_of_a_demonstration_is_right() -> None:
    for problem in distinct_sums("train", 300, seed=0):
        assert labels(problem, problem.demonstration) == [True] * len(str(problem.left))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>7+8+0=14 4+1+1=06</think><answer>64</answer>", [False, True]),  # A wrong sum; what follows from it is right.
        ("<think>7+8+0=15 4+2+1=07</think><answer>75</answer>", [True, False]),  # Not the digits of the question.
        ("<think>7+8+0=15 4+1+0=05</think><answer>55</answer>", [True, False]),  # The carry is lost.
        ("<think>7+8+0=15 4+1+1=06</think><answer>56</answer>", [True, False]),  # The columns do not spell that.
        ("<think>7+8+0=15</think><answer>5</answer> 4+1+1=06", [False, False]),  # It ends too early, and goes on.
        ("<think>7+8+0=15 4+1+1=06 0+0+0=00</think><answer>065</answer>", [True, False, False]),  # Too late.
        ("7+8+0=15 4+1+1=06</think><answer>65</answer>", [False, True]),  # No thought is opened.
        ("<think>nonsense 4+1+0=05</think><answer>5</answer>", [False, True]),
    ],
)
def test_each_step_is_judged_by_the_question_and_the_step_before(response: str, expected: list[bool]) -> None:
    assert labels(Sum(47, 18), response) == expected


def test_other_digits_spoil_the_steps_that_they_stand_in() -> None:
    generator = random.Random(0)
    num_changed = 0
    for problem in distinct_sums("train", 300, seed=0):
        misread = with_other_digits(problem.question, generator, chance=0.3)
        left, right = misread.rstrip("=").split("+")
        assert len(left) == len(right) and "0" not in (left[0], right[0])
        # A column of a digit that was changed is wrong; the others are read from the question and the columns before as they stand.
        same = [a + b == c + d for a, b, c, d in zip(left, right, str(problem.left), str(problem.right), strict=True)]
        assert labels(Sum(int(left), int(right)), problem.demonstration) == same[::-1]
        num_changed += sum(a != b for a, b in zip(problem.question, misread, strict=True))
    num_digits = sum(2 * len(str(problem.left)) for problem in distinct_sums("train", 300, seed=0))
    assert 0.25 < num_changed / num_digits < 0.35
    demonstration = Sum(47, 18).demonstration
    assert with_other_digits(demonstration, generator, chance=0.0) == demonstration
    changed = with_other_digits(demonstration, generator, chance=1.0)
    assert not any(a == b for a, b in zip(demonstration, changed, strict=True) if a.isdigit())
