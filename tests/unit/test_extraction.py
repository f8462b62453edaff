from __future__ import annotations

import time

import pytest

from verifiers.extraction import extract, last_number, without_thought

STRICT = [
    (r"so \boxed{5}", "5"),
    (r"first \boxed{4}, no, \boxed{5}.", "5"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed {5}", "5"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{x : x > \boxed{1}\right\}}", "1"),
    # An unfinished last box does not hide the one before it.
    (r"\boxed{4} or rather \boxed{5", "4"),
    (r"in \boxed notation \boxed{4} and \boxed", "4"),
    (r"{ { \boxed{4}", "4"),
    ("<answer>5</answer>", "5"),
    ("<answer> 5\n</answer>", "5"),
    ("<answer>4</answer> wait <answer>5</answer>", "5"),
    ("<answer>4</answer> wait <answer>5", "4"),
    ("<answer>4</answer> or </answer>", "4"),
    ("<answer><answer>4</answer>", "4"),
    # What was written last counts, and a box inside the tag is opened.
    (r"<answer>The sum is \boxed{5}.</answer>", "5"),
    (r"\boxed{4} <answer>5</answer>", "5"),
    (r"<answer>4</answer> \boxed{5}", "5"),
    ("<answer></answer>", None),
    (r"\boxed{ }", None),
    ("the answer is 5\n#### 5", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), STRICT)
def test_strict_takes_the_last_boxed_or_tagged_answer(text: str, answer: str | None) -> None:
    assert extract(text, "strict") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>\boxed{4}</think> hence \boxed{5}", "5"),
        (r"<think>\boxed{4}</think> hence", None),
        (r"\boxed{5} <think>\boxed{4}</think>", "5"),
        # The prompt may have opened the thought.
        (r"maybe \boxed{4}</think> hence", None),
        (r"<think>a</think>\boxed{4}</think> hence", None),
        # An unclosed thought hides nothing: the response may simply have been cut off.
        (r"<think>\boxed{4}", "4"),
        (r"<think>a</think><think>\boxed{4}", "4"),
        ("<think>a<think>b</think><answer>5</answer>", "5"),
    ],
)
def test_an_answer_inside_a_closed_thought_does_not_count(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The answer is 7. \boxed{5}", "5"),
        ("2 + 3 = 5\n#### 1,234", "1,234"),
        ("#### Step 1\nThe answer is 5.", "5"),
        ("The answer is $5.50. Check: 3.", "5.50"),
        ("**Answer:** 42", "42"),
        ("Final answer: **72**", "72"),
        ("Final Answer: The final answer is $-256$. I hope it is correct.", "-256"),
        ("The answer is:\n\n42", "42"),
        ("The answer is $\\frac{1}{2}$.", r"\frac{1}{2}"),
        ("so 10 - 3 = 7 eggs, each for $2, or $1,200.", "$1,200"),
        ("roughly -3", "-3"),
        ("that leaves 5-3", "3"),
        ("a list: 1,2,3", "3"),
        ("half of it, 1/2", "1/2"),
        ("a share of 5%", "5%"),
        ("no idea", None),
    ],
)
def test_lenient_falls_back_to_hash_phrase_and_last_number(text: str, answer: str | None) -> None:
    assert extract(text, "lenient") == answer


def test_a_single_form_looks_for_nothing_else() -> None:
    text = "<answer>1</answer> \\boxed{2}\n#### 3\nbye"
    assert [extract(text, form) for form in ("tag", "boxed", "hash")] == ["1", "2", "3"]
    assert extract(" all of it ", "whole") == "all of it"
    assert extract("nothing", "hash") is None


def test_the_last_number_keeps_thousands_together() -> None:
    assert last_number("from 12,345,678.90 on") == "12,345,678.90"
    assert last_number("1234,567") == "567"


def test_thought_leaves_a_gap_so_that_words_do_not_join() -> None:
    assert without_thought("1<think>x</think>2").split() == ["1", "2"]


ATTACKS = [
    "{",
    "}",
    "\\boxed{",
    "\\boxed",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "answer is ",
    "answer:",
    "answer ",
    "1",
    "1,234,",
    "1/",
]


@pytest.mark.parametrize("piece", [*ATTACKS, " ", "\n", "####", "-"], ids=repr)
def test_ten_megabytes_of_anything_are_searched_in_linear_time(piece: str) -> None:
    # Measured 0.01–2.0 s of processor time on a loaded machine; one quadratic scan of 10 MB would take hours.
    started = time.process_time()
    extract(piece * (10_000_000 // len(piece)), "lenient")
    assert time.process_time() - started < 20
