from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from verifiers.extraction import Extraction, extract
from verifiers.numeric import parse_number

MARKUP = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "\\boxed",
        "{",
        "}",
        "\\{",
        "\\}",
        "\\\\",
        "####",
        "\n",
        "the answer is ",
        "3",
        ".",
    ]
)
SOUP = st.lists(MARKUP | st.text(max_size=3), max_size=40).map("".join)
PLAIN = st.text(st.characters(blacklist_characters="\\{}<>#", blacklist_categories=("Cs",)), min_size=1).filter(str.strip)


@given(text=SOUP)
def test_any_text_gives_a_stripped_part_of_it_or_nothing(text: str) -> None:
    for extraction in get_args(Extraction):
        answer = extract(text, extraction)
        if answer is not None:
            assert answer and answer == answer.strip()
            if "</think>" not in text:
                assert answer in text


@given(before=PLAIN, answer=PLAIN, after=PLAIN)
def test_a_written_answer_is_found_in_whatever_surrounds_it(before: str, answer: str, after: str) -> None:
    for text in (f"{before}<answer>{answer}</answer>{after}", f"{before}\\boxed{{{answer}}}{after}"):
        assert extract(text) == extract(text, "lenient") == answer.strip()


@given(thought=SOUP.filter(lambda text: "</think>" not in text), answer=PLAIN)
def test_nothing_thought_is_an_answer(thought: str, answer: str) -> None:
    assert extract(f"<think>{thought}</think>") is None
    assert extract(f"<think>{thought}</think><answer>{answer}</answer>") == answer.strip()


@given(text=SOUP, closed=st.booleans())
def test_a_finished_box_after_a_text_is_the_answer(text: str, closed: bool) -> None:
    # An unfinished box after it changes nothing.
    assert extract(f"{text}</think>\\boxed{{7}}" + ("" if closed else "\\boxed{8")) == "7"


@given(whole=st.integers(-(10**30), 10**30), decimals=st.integers(0, 20))
def test_a_written_decimal_is_read_exactly(whole: int, decimals: int) -> None:
    from decimal import Context, Decimal
    from fractions import Fraction

    value = Decimal(whole).scaleb(-decimals, Context(prec=60))
    number = parse_number(f"{value:,f}")
    assert number is not None and number.value == Fraction(whole, 10**decimals)


@given(over=st.integers(-(10**6), 10**6), under=st.integers(1, 10**6))
def test_both_spellings_of_a_fraction_are_read_exactly(over: int, under: int) -> None:
    from fractions import Fraction

    for text in (f"{over}/{under}", rf"\frac{{{over}}}{{{under}}}"):
        number = parse_number(text)
        assert number is not None and number.value == Fraction(over, under)


@given(text=st.text(max_size=30) | st.text("0123456789.,/-+%$eE \\{}frac*^", max_size=30))
def test_any_text_is_a_number_or_nothing(text: str) -> None:
    parse_number(text)
