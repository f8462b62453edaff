"""Whatever a policy writes, the math verifier answers: no crash, no hang, no reward for nonsense.

`RLVR_FUZZ_EXAMPLES=100000` runs as many random strings (a few minutes); the suite runs a sample.
"""

from __future__ import annotations

import asyncio
import os
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifiers.math import Math
from verifiers.math.answers import compare
from verifiers.math.quantities import Rules
from verifiers.math.scalars import Match
from verifiers.testing import FixedResponse
from verifiers.types import Problem

NUM_EXAMPLES = int(os.environ.get("RLVR_FUZZ_EXAMPLES", "1500"))
SLOW_SECONDS = 5.0
"""A check in this process is over in milliseconds; with this much room only a hang fails, on any machine."""

PIECES = r"""
0 1 2 5 7 10 100 3.14 .5 1e5 1E99 1,000 12 x y z a b n f g e i E pi \pi \alpha \theta \infty + - * / ^ _ = < > ! % | , ; : . ' ( ) [ ] { }
\{ \} \frac \dfrac \sqrt \sqrt[3] \left( \right) \cdot \times \div \pm \mp \le \ge \ne \in \cup \cap \setminus \approx \text{and} \text{or}
\text{cm} \text{even} \mathrm{km} ^\circ ^{\circ} \% \$ $ \( \) \[ \] \boxed{ \boxed \sin \cos \tan \ln \log \log_2 \arcsin \binom \sum_{k=1}^{n}
\sum_{k=1}^{10} \int_0^1 dx \lim_{x\to0} \begin{pmatrix} \end{pmatrix} & \\ \overline{3} \mathbb{R} \emptyset \ldots \lfloor \rfloor \quad \, \!
{n\choose2} ^{99999} ^{1000000} _2 _{10} <answer> </answer> <think> </think> #### or and the answer is _ __import__ \x00 \u221a \u00b2 \u00bd
""".split()
formulas = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
spaced = st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)
texts = st.one_of(formulas, spaced, st.text(max_size=60))
VERIFIER = Math(deadline_seconds=0.2)
RULES = Rules()


@settings(max_examples=NUM_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=texts, boxed=st.booleans())
def test_any_response_gets_a_verdict_and_none_earns_the_reward_of_an_answer_it_does_not_give(text: str, boxed: bool) -> None:
    started = time.monotonic()
    response = rf"so \boxed{{{text}}}" if boxed else text
    (verdict,) = asyncio.run(VERIFIER(Problem("p", (), {"answer": "918273645"}), [FixedResponse(response)]))
    assert verdict.outcome != "correct"
    assert time.monotonic() - started < SLOW_SECONDS


@settings(max_examples=NUM_EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=texts, second=texts)
def test_comparing_any_two_texts_ends_and_is_repeatable(first: str, second: str) -> None:
    started = time.monotonic()
    result = compare(first, second, RULES)
    assert compare(first, second, RULES) is result
    assert time.monotonic() - started < SLOW_SECONDS


@settings(max_examples=NUM_EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(-(10**30), 10**30), other=st.integers(-(10**30), 10**30))
def test_whole_numbers_are_equal_exactly_where_they_are_the_same(number: int, other: int) -> None:
    assert compare(str(number), f"{number:,}", RULES) is Match.EQUAL
    assert (compare(str(number), str(other), RULES) is Match.EQUAL) == (number == other)
