"""Claims about `multiple_choice`, `length`, `instruction`, `by_tag` and `first_conclusive`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.algorithms import OverlongConfig
from rlvr.rewards import overlong_penalty
from verifiers.composite import ByTag, FirstConclusive
from verifiers.errors import BadOption, GoldError, VerifierError
from verifiers.instruction import CHECKS, Instruction
from verifiers.length import Length
from verifiers.multiple_choice import MultipleChoice
from verifiers.registry import VERIFIERS, build
from verifiers.testing import FixedResponse, check_verifier
from verifiers.types import Problem, Response, Verdict, Verifier


def judge(
    verifier: Verifier, reference: Mapping[str, Any], text: str, *, finish: Any = "stop", tokens: int = 9, tags: Sequence[str] = ()
) -> Verdict:
    problem = Problem("p7", ({"role": "user", "content": "?"},), reference, tuple(tags))
    return asyncio.run(verifier(problem, [FixedResponse(text, finish, num_tokens=tokens)]))[0]


def test_the_verifiers_are_registered() -> None:
    for name in ("math", "multiple_choice", "length", "instruction", "by_tag", "first_conclusive"):
        assert VERIFIERS.get(name)


# --- multiple_choice

FRUIT = {"answer": "B", "choices": ["an apple", "a pear", "5", "12"]}


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "(B)",
        "b",
        "B.",
        "B)",
        r"\text{(B)}",
        r"\textbf{B}",
        r"\mathrm{(B)}",
        "B) a pear",
        "(B) a pear",
        "Option B",
        "choice (B)",
        "**B**",
        "B: a pear",
    ],
)
def test_a_choice_is_named_by_its_letter_in_any_of_the_usual_forms(answer: str) -> None:
    assert judge(MultipleChoice(), {"answer": "B"}, rf"\boxed{{{answer}}}").outcome == "correct"
    assert judge(MultipleChoice(), {"answer": "(C)"}, rf"\boxed{{{answer}}}").outcome == "incorrect"


def test_a_choice_may_be_named_by_its_text_where_the_choices_are_known() -> None:
    assert judge(MultipleChoice(), FRUIT, r"\boxed{a pear}").outcome == "correct"
    assert judge(MultipleChoice(), FRUIT, r"\boxed{\text{A pear.}}").outcome == "correct"
    assert judge(MultipleChoice(), FRUIT, r"\boxed{an apple}").outcome == "incorrect"
    assert judge(MultipleChoice(), FRUIT, r"\boxed{a plum}").outcome == "unparseable"
    assert judge(MultipleChoice(), {**FRUIT, "answer": "a pear"}, r"\boxed{B}").outcome == "correct"
    assert judge(MultipleChoice(), {"answer": "x", "choices": {"x": "one", "y": "two"}}, r"\boxed{X}").outcome == "correct"


@pytest.mark.parametrize("answer", ["A or B", "A, B, C, D", "B and C", "(A)(B)", "B/C", "B) an apple", "Because of that", "a thing"])
def test_several_letters_or_a_letter_with_another_choice_s_text_name_no_choice(answer: str) -> None:
    assert judge(MultipleChoice(), FRUIT, rf"\boxed{{{answer}}}").score == 0


@pytest.mark.parametrize(
    "reference", [{"answer": "7"}, {"answer": "Z", "choices": ["a", "b"]}, {"answer": "B", "choices": "ab"}, {"answer": "B", "choices": 5}]
)
def test_a_gold_answer_that_is_no_choice_is_an_error(reference: dict[str, Any]) -> None:
    with pytest.raises(GoldError, match="p7"):
        judge(MultipleChoice(), reference, r"\boxed{B}")


# --- length


def test_length_costs_nothing_up_to_the_buffer_and_the_whole_penalty_at_the_limit() -> None:
    # L = 100, c = 20: 80 tokens cost 0, 90 half, 100 all of it; DAPO, equation 13.
    verifier = Length(max_tokens=100, buffer_tokens=20, penalty=2.0)
    found = [(judge(verifier, {}, "x", tokens=n).score, judge(verifier, {}, "x", tokens=n).outcome) for n in (1, 80, 90, 100, 150)]
    assert found == [(0.0, "correct"), (0.0, "correct"), (-1.0, "partial"), (-2.0, "incorrect"), (-2.0, "incorrect")]
    assert judge(verifier, {}, "x", tokens=100, finish="length").outcome == "truncated"


def test_length_and_the_algorithms_overlong_punishment_are_one_formula() -> None:
    verifier = Length(max_tokens=50, buffer_tokens=10, penalty=0.5)
    for tokens in range(1, 60):
        assert judge(verifier, {}, "x", tokens=tokens).score == -overlong_penalty(tokens, 50, OverlongConfig(buffer_tokens=10, penalty=0.5))


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 0, "buffer_tokens": 1},
        {"max_tokens": 9, "buffer_tokens": 10},
        {"max_tokens": 9, "buffer_tokens": 3, "penalty": -1},
        {"max_tokens": 9},
    ],
)
def test_a_length_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        build("length", options)


# --- instruction: id, arguments, a text that holds, a text that does not

INSTRUCTIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["tree", "sea"]}, "The Tree by the sea.", "The trees by the sea."),
    ("keywords:frequency", {"keyword": "so", "relation": "at least", "frequency": 2}, "So, so.", "So, also."),
    ("keywords:frequency", {"keyword": "so", "relation": "less than", "frequency": 2}, "So, also.", "So, so."),
    ("keywords:forbidden_words", {"forbidden_words": ["no"]}, "none of it", "No, none"),
    ("keywords:letter_frequency", {"letter": "q", "let_relation": "at least", "let_frequency": 2}, "Quite quick", "quite"),
    (
        "language:response_language",
        {"language": "de"},
        "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter.",
        "This is a sentence about the weather today.",
    ),
    ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3}, "One is 1.5. Two!", "One. Two? Three."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 4}, "well-known words don't lie", "three words here"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen it ends.",
        "First.\n\nSo it ends.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [place]", "[name] of place"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Hello", "Bye. That is all."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and two"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Spring>>\nIt rains.", "Spring\nIt rains."),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "Say hi. Hi!", "Hi!"),
    ("startend:end_checker", {"end_phrase": "Is that all?"}, "Yes. Is that all?", "Is that all? Yes."),
    ("startend:quotation", {}, '"All of it."', 'All of "it"'),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "NOW or NEVER", "NOW or never"),
    ("change_case:english_capital", {}, "ALL OF IT, 1", "All of it"),
    ("change_case:english_lowercase", {}, "all of it, 1", "All of it"),
    ("punctuation:no_comma", {}, "one two", "one, two"),
]


def test_every_constraint_has_a_text_that_holds_and_one_that_does_not() -> None:
    assert {name for name, *_ in INSTRUCTIONS} == set(CHECKS)
    assert len(CHECKS) == 25  # as many as IFEval has


@pytest.mark.parametrize(("name", "arguments", "holds", "breaks"), INSTRUCTIONS)
def test_a_constraint_holds_where_it_should_and_only_there(name: str, arguments: dict[str, Any], holds: str, breaks: str) -> None:
    reference = {"constraints": [{"id": name, **arguments}]}
    assert judge(Instruction(), reference, holds).outcome == "correct"
    assert judge(Instruction(), reference, breaks).outcome == "incorrect"
    columns = {"instruction_id_list": [name], "kwargs": [{**arguments, "unused": None}]}
    assert judge(Instruction(), columns, holds).outcome == "correct"


def test_the_score_is_all_or_nothing_or_the_share() -> None:
    reference = {"constraints": [{"id": "punctuation:no_comma"}, {"id": "detectable_format:title"}]}
    whole, share = judge(Instruction(), reference, "no title"), judge(Instruction(score="share"), reference, "no title")
    assert (whole.score, whole.outcome, share.score) == (0.0, "partial", 0.5)
    assert share.parts == {"punctuation:no_comma": 1.0, "detectable_format:title": 0.0}
    assert "detectable_format:title" in share.explanation


def test_loose_judging_forgives_a_line_before_and_markdown() -> None:
    reference = {"constraints": [{"id": "change_case:english_lowercase"}]}
    text = "Sure, here it is:\nall of it"
    assert judge(Instruction(), reference, text).score == 0
    assert judge(Instruction(loose=True), reference, text).score == 1


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"constraints": []},
        {"constraints": [{"id": "punctuation:no_coma"}]},
        {"constraints": [{"id": "keywords:existence"}]},
        {"constraints": [{"id": "keywords:frequency", "keyword": "a", "relation": "around", "frequency": 1}]},
    ],
)
def test_a_constraint_that_cannot_be_checked_is_an_error(reference: dict[str, Any]) -> None:
    with pytest.raises(GoldError, match="p7"):
        judge(Instruction(), reference, "text")


# --- composites

MATH, CHOICE, EXACT = "verifiers.math:Math", "verifiers.multiple_choice:MultipleChoice", "verifiers.exact_match:ExactMatch"


def test_by_tag_asks_the_verifier_of_the_first_route_whose_tag_the_problem_has() -> None:
    verifier = ByTag([{"tag": "choice", "verifier": CHOICE}, {"tag": "math", "verifier": MATH}], default={"verifier": EXACT})
    assert judge(verifier, {"answer": "1/2"}, r"\boxed{0.5}", tags=["hard", "math"]).outcome == "correct"
    assert judge(verifier, {"answer": "B"}, r"\boxed{(B)}", tags=["choice"]).outcome == "correct"
    assert judge(verifier, {"answer": "1/2"}, r"\boxed{0.5}").outcome == "incorrect"


def test_by_tag_without_a_default_names_the_problem_it_has_no_route_for() -> None:
    verifier = ByTag([{"tag": "math", "verifier": MATH}])
    with pytest.raises(VerifierError, match="'p7' has the tags code, and the routes know math"):
        judge(verifier, {"answer": "1"}, "1", tags=["code"])


@pytest.mark.parametrize("routes", [[], "math", [{"verifier": MATH}], [{"tag": "a", "verifier": MATH, "option": 1}]])
def test_routes_that_make_no_sense_are_refused(routes: Any) -> None:
    with pytest.raises(BadOption):
        build("by_tag", {"routes": routes})


async def cannot_tell(problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
    return [Verdict(0.0, "unparseable", explanation="cannot tell") for _ in responses]


async def fails(problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
    raise VerifierError("out of order")


HERE = f"{__name__}:"


def test_first_conclusive_goes_on_only_with_what_the_earlier_parts_could_not_read() -> None:
    verifier = FirstConclusive([{"verifier": MATH, "options": {"extraction": "strict"}}, {"verifier": MATH, "name": "lenient"}])
    strict, lenient = judge(verifier, {"answer": "5"}, r"\boxed{5}"), judge(verifier, {"answer": "5"}, "The answer is 5.")
    assert (strict.outcome, list(strict.parts)) == ("correct", [MATH])
    assert (lenient.outcome, list(lenient.parts)) == ("correct", ["lenient"])
    assert judge(verifier, {"answer": "5"}, r"\boxed{6}, no: the answer is 5").outcome == "incorrect"


def test_first_conclusive_keeps_the_first_verdict_where_none_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = FirstConclusive([{"verifier": EXACT}, {"verifier": CHOICE}])
    verdict = judge(verifier, {"answer": "B"}, "nothing")
    assert verdict.outcome == "unparseable" and list(verdict.parts) == [EXACT]


def test_first_conclusive_skips_an_error_only_where_it_was_told_to() -> None:
    # A gold answer that is no choice is an error of `multiple_choice`.
    parts = [{"verifier": CHOICE}, {"verifier": MATH}]
    with pytest.raises(GoldError):
        judge(FirstConclusive(parts), {"answer": "7"}, r"\boxed{7}")
    assert judge(FirstConclusive(parts, skip_errors=True), {"answer": "7"}, r"\boxed{7}").outcome == "correct"


# --- all of them

ALL: list[tuple[Verifier, Mapping[str, Any]]] = [
    (MultipleChoice(), FRUIT),
    (MultipleChoice("lenient"), {"answer": "B"}),
    (Length(100, 20), {}),
    (
        Instruction(loose=True),
        {"constraints": [{"id": name, **arguments} for name, arguments, *_ in INSTRUCTIONS if not name.startswith("language")]},
    ),
    (FirstConclusive([{"verifier": CHOICE}, {"verifier": MATH}]), {"answer": "B"}),
    (ByTag([{"tag": "x", "verifier": MATH}], default={"verifier": EXACT}), {"answer": "B"}),
]


@pytest.mark.parametrize(("verifier", "reference"), ALL, ids=lambda value: type(value).__name__)
def test_it_keeps_the_contract(verifier: Verifier, reference: Mapping[str, Any]) -> None:
    check_verifier(verifier, problem=Problem("p7", ({"role": "user", "content": "?"},), reference))


@pytest.mark.parametrize(("verifier", "reference"), ALL, ids=lambda value: type(value).__name__)
@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(max_size=80), st.text(alphabet='AB()[]*{}\\boxed<>answer/.,\n" -#1', max_size=80)))
def test_any_text_gets_a_verdict(verifier: Verifier, reference: Mapping[str, Any], text: str) -> None:
    verdict = judge(verifier, reference, rf"\boxed{{{text}}}")
    json.dumps([verdict.score, verdict.outcome, verdict.explanation])
