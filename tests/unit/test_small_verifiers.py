"""Claims about `multiple_choice`, `length`, `instruction`, `by_tag` and `first_conclusive`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.algorithm_settings import OverlongConfig
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


Counted = tuple[str, dict[str, Any], str]
SENTENCES: Counted = ("length_constraints:number_sentences", {"relation": "at least"}, "num_sentences")
WORDS: Counted = ("length_constraints:number_words", {"relation": "at least"}, "num_words")
CAPITALS: Counted = ("change_case:capital_word_frequency", {"capital_relation": "at least"}, "capital_frequency")
TREES: Counted = ("keywords:frequency", {"keyword": "tree", "relation": "at least"}, "frequency")
HIGHLIGHTS: Counted = ("detectable_format:number_highlighted_sections", {}, "num_highlights")
SECTIONS: Counted = ("detectable_format:multiple_sections", {"section_spliter": "SECTION"}, "num_sections")
TITLE, TWO, SAYS = "detectable_format:title", "combination:two_responses", "detectable_format:constrained_response"
CAPITAL, LOWERCASE, POSTSCRIPT = "change_case:english_capital", "change_case:english_lowercase", "detectable_content:postscript"


def holds(name: str, arguments: Mapping[str, Any], text: str, rules: Any = "words") -> bool:
    return judge(Instruction(rules=rules), {"constraints": [{"id": name, **arguments}]}, text).outcome == "correct"


def counted(what: Counted, text: str, rules: Any) -> int:
    """The greatest number, to 9, of which there are at least so many in the text."""
    name, arguments, key = what
    return max((number for number in range(10) if holds(name, {**arguments, key: number}, text, rules)), default=0)


@pytest.mark.parametrize("rules", ["words", "ifeval"])
@pytest.mark.parametrize(
    ("what", "text", "count"),
    [
        (SENTENCES, "**It rained.** We left. _It stopped._", 3),  # Markdown may follow a stop,
        (SENTENCES, "“It rained.” (We left.) ‘It stopped.’", 3),  # and so may closing quotes and brackets,
        (SENTENCES, "self._name is 1.5 or a.b", 1),  # but what ends a sentence is followed by space.
        (SENTENCES, "Dr. Smith met Mr. Jones and Mrs. Hill. They left.", 2),
        (SENTENCES, "Fruit, e.g. apples, pears etc. is dear, i.e. above 2 pounds in the U.K. now. So what?", 2),
        (SENTENCES, "We sell apples, pears, etc. They are dear.", 2),  # Before a capital letter `etc.` does end a sentence.
        (SENTENCES, "It took 5 ms. Then it ended.", 2),  # milliseconds, not a Ms.
        (CAPITALS, "The U.S.A. and the U.K. met.", 2),
        (CAPITALS, "A WELL-KNOWN, X-RAY thing", 3),
        (HIGHLIGHTS, "An * * and ** ** and **** bridge", 0),  # Nothing, or nothing but space, between the asterisks.
        (HIGHLIGHTS, "x**2 - 5*x", 0),
        (HIGHLIGHTS, "*old*, **new** and ***both***", 3),
        (HIGHLIGHTS, "* *old*\n* **new**\n* plain", 2),
        (SECTIONS, "**SECTION 1**\n1. SECTION 2\n(SECTION 3) SECTION\n4", 4),
        (SECTIONS, "SubSECTION 1, section 2, Section 3, SECTION", 0),
    ],
)
def test_something_is_counted_so_often_by_either_rule(what: Counted, text: str, count: int, rules: str) -> None:
    assert counted(what, text, rules) == count


@pytest.mark.parametrize(
    ("what", "text", "by_words", "by_ifeval"),
    [
        (WORDS, "It's a well-known fact.", 4, 6),  # It's, a, well-known, fact; It, s, a, well, known, fact
        (TREES, "A tree, two trees, a street: _tree_.", 2, 4),
        (CAPITALS, "DON'T", 1, 2),  # DO, N'T
        (CAPITALS, "NASA's and I'm, I’ll", 0, 3),  # NASA, I, I
        (CAPITALS, "I CANNOT", 2, 3),  # I, CAN, NOT
        (CAPITALS, "JSON/XML: A,B and STOP...GO", 6, 5),  # the slash joins, the comma and the dots part
        (SECTIONS, "SECTION  1", 1, 0),  # one space at most
    ],
)
def test_the_rules_of_ifeval_count_as_its_code_does(what: Counted, text: str, by_words: int, by_ifeval: int) -> None:
    assert (counted(what, text, "words"), counted(what, text, "ifeval")) == (by_words, by_ifeval)


BULLETS, FIRST = "detectable_format:number_bullet_lists", "length_constraints:nth_paragraph_first_word"
THEN = {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "then"}


@pytest.mark.parametrize(
    ("name", "arguments", "text", "by_words", "by_ifeval"),
    [
        ("keywords:existence", {"keywords": ["St. Ives"]}, "StX Ives", False, True),  # a regular expression: the stop is any sign
        ("keywords:existence", {"keywords": ["(a"]}, "Item (a)", True, True),  # none, and so plain text
        ("keywords:forbidden_words", {"forbidden_words": ["tree"]}, "A _tree_.", False, True),  # \b: an underscore belongs to the word
        ("keywords:forbidden_words", {"forbidden_words": ["tree"]}, "Two trees.", True, True),
        ("keywords:forbidden_words", {"forbidden_words": ["pear", "tree"]}, "A Tree.", False, False),
        (BULLETS, {"num_bullets": 2}, "- tea\n-", False, True),  # an empty bullet counts
        (FIRST, THEN, "**Then** it ended.", True, False),  # the asterisks belong to the word
        (FIRST, THEN, "Then's the time.", False, True),  # a word ends at an apostrophe
        (FIRST, {**THEN, "first_word": "don't"}, "Don't go.", True, True),
        (FIRST, THEN, "...", False, False),
    ],
)
def test_the_rules_of_ifeval_hold_where_its_code_does(
    name: str, arguments: dict[str, Any], text: str, by_words: bool, by_ifeval: bool
) -> None:
    assert (holds(name, arguments, text, "words"), holds(name, arguments, text, "ifeval")) == (by_words, by_ifeval)


PS = {"postscript_marker": "P.S."}
GERMAN = "der fluss macht zwei biegungen, bevor er die alte brücke erreicht, und niemand weiß warum"
ENGLISH = "the river bends twice before it meets the old stone bridge, and nobody knows why"


@pytest.mark.parametrize("rules", ["words", "ifeval"])
@pytest.mark.parametrize(
    ("name", "arguments", "text", "is_held"),
    [
        (CAPITAL, {}, ENGLISH.upper(), True),
        (CAPITAL, {}, GERMAN.upper(), False),
        (CAPITAL, {}, "GOOD DAY", True),  # too short to tell; langdetect sees other languages
        (CAPITAL, {}, "ДОБРЫЙ ДЕНЬ", False),  # short as well, but not in letters of English
        (CAPITAL, {}, "12345", False),  # no capital letter, whatever the language
        (LOWERCASE, {}, ENGLISH, True),
        (LOWERCASE, {}, GERMAN, False),
        ("language:response_language", {"language": "de"}, "12345", True),  # in no language that langdetect can name
        (SAYS, {}, "Well. My answer is no. Why?", True),
        (SAYS, {}, "my answer is no.", False),
        (SAYS, {}, "My answer is No.", False),
        (POSTSCRIPT, PS, "Bye.\n\n**P.S.** Write soon.", True),
        (POSTSCRIPT, PS, "Bye.\n> p. s. write soon.", True),
        (POSTSCRIPT, PS, "Bye. P.S. Write soon.", True),
        (POSTSCRIPT, PS, "Bye.\nP.P.S. Write soon.", False),  # another marker
        (POSTSCRIPT, {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. Write soon.", True),
        (TWO, {}, "******\none\n******\ntwo\n******", True),
        (TWO, {}, "one\n******\n******\ntwo", False),  # between two separators stands nothing
        (TWO, {}, "one\n******\n", False),
        (TITLE, {}, "<<  >>", False),
        (TITLE, {}, "My <<a < b>> and <<a > b>>", True),
        (TITLE, {}, "<<a\nb>>", False),
    ],
)
def test_a_constraint_is_judged_alike_by_either_rule(name: str, arguments: dict[str, Any], text: str, is_held: bool, rules: str) -> None:
    assert holds(name, arguments, text, rules) == is_held


def test_options_of_unknown_value_are_refused_and_the_known_ones_named() -> None:
    with pytest.raises(BadOption, match="rules='paper' is neither 'words' nor 'ifeval'"):
        build("instruction", {"rules": "paper"})
    with pytest.raises(BadOption, match="score='any' is neither 'all' nor 'share'"):
        build("instruction", {"score": "any"})


@pytest.mark.parametrize(("name", "text"), [("language:response_language", "Guten Tag"), (CAPITAL, "Good day"), (LOWERCASE, "Good day")])
def test_a_constraint_on_the_language_without_langdetect_names_the_extra(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(VerifierError, match=r"rlvr\[instruction\]"):
        holds(name, {"language": "de"}, text)


@pytest.mark.parametrize("unit", ["\n", " ", "*", ".", "<<", "a.", "P."])
def test_a_long_text_of_one_sign_is_judged_in_linear_time(unit: str) -> None:
    # 100 000 characters with a letter at the end: about 0.2 s for all constraints; a pattern that goes back over them takes minutes.
    constraints = [{"id": name, **arguments} for name, arguments, *_ in INSTRUCTIONS]
    begun = time.perf_counter()
    judge(Instruction(), {"constraints": constraints}, unit * (100_000 // len(unit)) + "x")
    assert time.perf_counter() - begun < 10


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
