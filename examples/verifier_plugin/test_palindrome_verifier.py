from __future__ import annotations

import asyncio

from palindrome_verifier import Palindrome

from verifiers.testing import SAMPLE_PROBLEM, FixedResponse, check_verifier


def test_palindrome_keeps_the_contract() -> None:
    check_verifier(Palindrome())


def test_a_palindrome_scores_and_others_do_not() -> None:
    responses = [FixedResponse("<answer>Never odd or even</answer>"), FixedResponse("<answer>rlvr</answer>")]
    verdicts = asyncio.run(Palindrome()(SAMPLE_PROBLEM, responses))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
