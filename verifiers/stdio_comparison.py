"""When a program's output counts as the expected one, as contest judges see it: by its words; numbers with a point within a tolerance."""

from __future__ import annotations

import math
import re

DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]{1,4})?")
INTEGER = re.compile(r"[+-]?[0-9]{1,300}")


def same_output(stdout: str, expected: str, tolerance: float) -> bool:
    """Whether two outputs hold the same words in the same order, whatever blanks and line breaks stand between them.

    Two words that are numbers, one of them at least with a decimal point or an exponent, may differ by `tolerance`, relative or absolute.
    """
    words, expected_words = stdout.split(), expected.split()
    return len(words) == len(expected_words) and all(
        word == expected_word or _close(word, expected_word, tolerance) for word, expected_word in zip(words, expected_words, strict=True)
    )


def _close(word: str, expected: str, tolerance: float) -> bool:
    decimals = [DECIMAL.fullmatch(each) is not None for each in (word, expected)]
    numbers = [is_decimal or INTEGER.fullmatch(each) is not None for is_decimal, each in zip(decimals, (word, expected), strict=True)]
    if not all(numbers) or not any(decimals):
        return False
    return math.isclose(float(word), float(expected), rel_tol=tolerance, abs_tol=tolerance)
