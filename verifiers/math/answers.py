"""From two texts to a judgement: reads gold and answer, tries the readings an ambiguous text allows, and falls back on words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from verifiers.math.cleaning import clean, letters_only
from verifiers.math.clock import OutOfTime, time_limit
from verifiers.math.equivalence import equivalent
from verifiers.math.nodes import Node
from verifiers.math.parser import MAX_CHARACTERS, Unreadable, parse
from verifiers.math.quantities import Rules
from verifiers.math.scalars import Match

IN_PROCESS_SECONDS = 0.25
"""A comparison takes a millisecond; one that takes this long goes on in a worker, which can be killed."""
MAX_SHORT = 400
"""A tree takes some hundred times the memory of its text: of longer texts few are kept."""
TOO_DEEP = "nested too deep"
CHOICE = re.compile(r"\W{0,3}([A-Z])\W{0,3}(?:[.:)]\s{0,3}\S.{0,200})?", re.DOTALL)
TIME = re.compile(r"\W{0,6}([0-9]{1,2}):([0-9]{2})\W{0,6}([ap]?)\W{0,3}m?\W{0,6}", re.IGNORECASE)
WORDS_OF_SETS = {
    "all real numbers": Node("reals"),
    "real numbers": Node("reals"),
    "all reals": Node("reals"),
    "no solution": Node("empty"),
    "no solutions": Node("empty"),
    "no real solution": Node("empty"),
    "no real solutions": Node("empty"),
    "no real roots": Node("empty"),
    "empty set": Node("empty"),
}
SYNONYMS = {"dne": "does not exist", "undefined": "does not exist", "not defined": "does not exist", "true": "yes", "false": "no"}
LEADING = re.compile(r"(?:only|exactly|approximately|about|equals|is|are)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as read: its tree, or its words where it is no formula; `problem` says why it is none."""

    text: str
    tree: Node | None
    words: str
    problem: str = ""

    @property
    def readable(self) -> bool:
        """Whether there is a formula or at least a word to compare."""
        return self.tree is not None or self.problem == TOO_DEEP or any(character.isalpha() for character in self.words)


def read(text: str, *, thousands: bool = True) -> Reading:
    """Read one answer; what was read lately is remembered, long texts only a few."""
    return (_read_short if len(text) <= MAX_SHORT else _read_long)(text, thousands)


@lru_cache(maxsize=4096)
def _read_short(text: str, thousands: bool) -> Reading:
    return _read(text, thousands)


@lru_cache(maxsize=16)
def _read_long(text: str, thousands: bool) -> Reading:
    return _read(text, thousands)


def _read(text: str, thousands: bool) -> Reading:
    if len(text) > 4 * MAX_CHARACTERS:
        return Reading(text[:100], None, "", f"longer than {4 * MAX_CHARACTERS} characters")
    cleaned = clean(text)
    words = letters_only(cleaned) if len(cleaned) < 2000 else ""
    if words in WORDS_OF_SETS:
        return Reading(cleaned, WORDS_OF_SETS[words], words)
    try:
        return Reading(cleaned, parse(cleaned, thousands=thousands), words)
    except Unreadable as error:
        shorter = LEADING.sub("", cleaned, count=1) if LEADING.match(cleaned) else ""
        if shorter:
            try:
                return Reading(cleaned, parse(shorter, thousands=thousands), words)
            except Unreadable:
                pass
        return Reading(cleaned, None, words, str(error))
    except RecursionError:
        return Reading(cleaned, None, "", TOO_DEEP)


def compare(gold: str, answer: str, rules: Rules, work_out: Callable[[Node], Node] | None = None) -> Match:
    """Compare two answers as texts; UNKNOWN where only the last stage, in a worker, could tell, or `IN_PROCESS_SECONDS` are over.

    That stage is the same comparison without a limit, after `work_out` has replaced sums, integrals and limits by their values.
    """
    if work_out is not None:
        return _compare(gold, answer, rules, work_out)
    for _ in range(2):  # A pause of the garbage collector is nothing the answer did.
        try:
            with time_limit(IN_PROCESS_SECONDS):
                return _compare(gold, answer, rules, None)
        except OutOfTime:
            continue
    return Match.UNKNOWN


def _compare(gold: str, answer: str, rules: Rules, work_out: Callable[[Node], Node] | None) -> Match:
    one, two = read(gold), read(answer)
    if (special := _special_forms(one, two)) is not None:
        return special
    if TOO_DEEP in (one.problem, two.problem):
        return Match.UNKNOWN
    result = Match.DIFFERENT
    if one.tree is not None and two.tree is not None:
        trees = (one.tree, two.tree) if work_out is None else (work_out(one.tree), work_out(two.tree))
        result = _compare_trees(*trees, rules)
        if result is Match.DIFFERENT:
            result = _other_readings(gold, answer, one.tree, two.tree, rules)
    if result is Match.DIFFERENT and (one.tree is None or two.tree is None or one.tree.kind == "text"):
        return _compare_words(one, two)
    return result


def _compare_trees(gold: Node, answer: Node, rules: Rules) -> Match:
    try:
        return equivalent(gold, answer, rules)
    except RecursionError:
        return Match.UNKNOWN


def _other_readings(gold: str, answer: str, one: Node, two: Node, rules: Rules) -> Match:
    """`100,200` may be two numbers where the other side is a list."""
    if "," in gold and two.kind in ("list", "group"):
        split = read(gold, thousands=False).tree
        if split is not None and split != one and split.kind == "list":
            return _compare_trees(split, two, rules)
    if "," in answer and one.kind in ("list", "group"):
        split = read(answer, thousands=False).tree
        if split is not None and split != two and split.kind == "list":
            return _compare_trees(one, split, rules)
    return Match.DIFFERENT


def _special_forms(one: Reading, two: Reading) -> Match | None:
    """Times of day and letters of a choice, which as formulas would be ratios and variables."""
    gold_time, answer_time = TIME.fullmatch(unwrapped(one.text)), TIME.fullmatch(unwrapped(two.text))
    if gold_time and answer_time and len(gold_time[2]) == 2:
        same = int(gold_time[1]) == int(answer_time[1]) and gold_time[2] == answer_time[2]
        halves = {half.lower() for half in (gold_time[3], answer_time[3]) if half}
        return Match.EQUAL if same and len(halves) < 2 else Match.DIFFERENT
    gold_choice = CHOICE.fullmatch(unwrapped(one.text))
    if gold_choice and len(unwrapped(two.text)) > 3:
        answer_choice = CHOICE.fullmatch(unwrapped(two.text))
        if answer_choice and re.search(r"[.:)]", answer_choice[0]):
            return Match.EQUAL if gold_choice[1] == answer_choice[1] else Match.DIFFERENT
    return None


def unwrapped(text: str) -> str:
    r"""Return a short text without `\\text{…}` around its words; nothing for a long one."""
    if len(text) > 300:
        return ""
    return re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|textnormal)\s{0,4}\{([^{}]{0,200})\}", r"\1", text).strip()


def _compare_words(one: Reading, two: Reading) -> Match:
    if not any(map(str.isalpha, one.words)) or not any(map(str.isalpha, two.words)):
        return Match.DIFFERENT
    first, second = SYNONYMS.get(one.words, one.words), SYNONYMS.get(two.words, two.words)
    return Match.EQUAL if first == second or first.replace(" ", "") == second.replace(" ", "") else Match.DIFFERENT
