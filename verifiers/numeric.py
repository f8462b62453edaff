r"""The verifier `numeric`: the final answer is the gold number, compared as exact fractions.

Reads plain numbers only and evaluates nothing: `2^{10}` or `\sqrt{2}` is not a number here; the verifier `math` knows those.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from verifiers.errors import GoldError
from verifiers.extraction import NUMBER, Extraction, check_extraction, extract
from verifiers.gold import gold_answer, no_answer
from verifiers.types import Problem, Response, Verdict

MAX_CHARACTERS = 400
"""Longer texts are not read as numbers: the time to read digits grows with their square."""
MAX_EXPONENT = 400
"""`1e999999999` is five bytes of text and gigabytes of number."""

UNSIGNED = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
DECIMAL = re.compile(rf"(?P<digits>{UNSIGNED})(?:(?:[eE]|\*10\^)\{{?(?P<exponent>[-+]?[0-9]{{1,6}})\}}?)?")
RATIO = re.compile(rf"(?:(?P<whole>[0-9]+) (?=[0-9]{{1,2}}/))?(?P<over>{UNSIGNED})/(?P<under>[-+]?{UNSIGNED})")
FRACTION = re.compile(r"\\[dtc]?frac *(?:\{ *([-+]?[0-9.,]+) *\}|([0-9])) *(?:\{ *([-+]?[0-9.,]+) *\}|([0-9]))")
# A variable being given its value, and words with blanks around the number: `3u` or `x + 3` is no number among words.
VARIABLE = re.compile(r"\s*\\?[A-Za-z]+\s*=")
AMONG_WORDS = re.compile(rf"(?:[A-Za-z' ]+ )?({NUMBER.pattern})(?: ?[A-Za-z]{{2,}}[A-Za-z'. ]*| [A-Za-z])?")
# Other spellings of the same number. `\,`, `\!` and `{,}` separate thousands in LaTeX.
SPELLINGS = [
    ("\u2212", "-"),
    ("{,}", ","),
    (",\\! ", ","),
    ("\\!", ""),
    ("\\,", " "),
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("\u00d7", "*"),
    ("\\%", "%"),
    ("\\$", "$"),
]
CURRENCY = "$\u20ac\u00a3 "


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value and whether a percent sign followed it; the sign is not applied to the value: `50%` has the value 50."""

    value: Fraction
    is_percent: bool = False

    def readings(self, other: Number) -> tuple[Fraction, ...]:
        """What this number may mean beside `other`: where only this one has a percent sign, 50 (percent) or 1/2."""
        if self.is_percent and not other.is_percent:
            return self.value, self.value / 100
        return (self.value,)


@dataclass(frozen=True, slots=True)
class Numeric:
    """Scores 1 where the final answer is the number `reference["answer"]`, within the tolerances, else 0.

    The default tolerances are 0: exactly equal, and 0.1 + 0.2 is 3/10. An answer passes by either tolerance: `tolerance` is the largest
    absolute difference, `relative_tolerance` the largest difference as a share of the gold value. An answer that is no number counts as
    unparseable; with the extraction `lenient` one number among words, such as "18 dollars" or "x = 18", is read.
    """

    extraction: Extraction = "strict"
    tolerance: float = 0.0
    relative_tolerance: float = 0.0

    def __post_init__(self) -> None:
        check_extraction(self.extraction)
        for name, value in (("tolerance", self.tolerance), ("relative_tolerance", self.relative_tolerance)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name}={value!r} is not a number of at least 0")

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        text = gold_answer(problem)
        gold = parse_number(text)
        if gold is None:
            raise GoldError(
                f"problem {problem.id!r}: reference 'answer' {text[:80]!r} is not a number; use another verifier or data.answer_pattern"
            )
        return [self._judge(gold, text, response) for response in responses]

    def _judge(self, gold: Number, gold_text: str, response: Response) -> Verdict:
        answer = extract(response.text, self.extraction)
        if answer is None:
            return no_answer(response, self.extraction)
        number = parse_number(answer)
        if number is None and self.extraction == "lenient":
            number = parse_number_among_words(answer)
        if number is None:
            return Verdict(0.0, "unparseable", extracted=answer, explanation=f"{answer[:80]!r} is not a number")
        if self._equal(number, gold):
            return Verdict(1.0, "correct", extracted=answer)
        return Verdict(0.0, "incorrect", extracted=answer, explanation=f"{answer!r} is not {gold_text!r}")

    def _equal(self, number: Number, gold: Number) -> bool:
        return any(
            abs(value - target) <= max(_exact(self.tolerance), _exact(self.relative_tolerance) * abs(target))
            for value in number.readings(gold)
            for target in gold.readings(number)
        )


def parse_number(text: str) -> Number | None:
    r"""Read a number written in digits, exactly; None where the text is anything else.

    Sign; digits with `,` or a blank before every third; decimal point; `e5` or `\times 10^{5}`; `3/4`, `\frac{3}{4}`, `1 3/4`; a percent
    sign; currency and dollar signs around it. A comma anywhere else (`1,22`) makes it unreadable: it could be a decimal point.

    Examples: `-1,234.50` is -2469/2; `\frac{3}{4}` and `.75` are 3/4; `50\%` is 50 with a percent sign.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    for spelling, plain in SPELLINGS:
        text = text.replace(spelling, plain)
    text = " ".join(text.split()).strip(CURRENCY)
    is_percent = text.endswith("%")
    text = FRACTION.sub(_flatten, text.removesuffix("%").rstrip())
    sign = -1 if text.startswith("-") else 1
    text = (text[1:] if text[:1] in ("-", "+") else text).lstrip(CURRENCY)
    value = _parse_ratio(text)
    if value is None:
        value = _parse_decimal(text)
    return None if value is None else Number(sign * value, is_percent)


def parse_number_among_words(text: str) -> Number | None:
    """Read the only number of a phrase without operators; None where there is none, or more than one."""
    if len(text) > MAX_CHARACTERS:
        return None
    text = VARIABLE.sub("", text, count=1) if VARIABLE.match(text) else text
    match = AMONG_WORDS.fullmatch(text.strip())
    return parse_number(match[1] if match else text)


def _flatten(match: re.Match[str]) -> str:
    over, under = match.group(1) or match.group(2), match.group(3) or match.group(4)
    # The blank keeps the whole part of `1\frac{1}{2}` apart.
    return f" {over}/{under}" if match.start() > 0 and match.string[match.start() - 1].isdigit() else f"{over}/{under}"


def _parse_ratio(text: str) -> Fraction | None:
    match = RATIO.fullmatch(text)
    if match is None:
        return None
    under = _digits(match["under"])
    return None if under == 0 else int(match["whole"] or 0) + _digits(match["over"]) / under


def _parse_decimal(text: str) -> Fraction | None:
    # `1 000 000`: groups of three, set apart by blanks.
    if re.fullmatch(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?", text):
        text = text.replace(" ", "")
    match = DECIMAL.fullmatch(text.replace(" ", "") if "*" in text else text)
    if match is None:
        return None
    exponent = int(match["exponent"] or 0)
    return None if abs(exponent) > MAX_EXPONENT else _digits(match["digits"]) * Fraction(10) ** exponent


def _digits(text: str) -> Fraction:
    return Fraction(text.replace(",", "").removesuffix("."))


def _exact(tolerance: float) -> Fraction:
    # 0.01 as it is written, not as its nearest binary fraction: then 1.01 is within 0.01 of 1.
    return Fraction(repr(tolerance))
