"""Small Python functions from one-line specifications: what a tiny model can learn to write from nothing, judged by real unit tests.

A specification such as `largest of even: x times 3` stands for a function of a list of integers. What it means is computed here, apart from
any program; tests are calls with what must come back. Nothing here trains and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "validation", "held_out"]


@dataclass(frozen=True, slots=True)
class Part:
    """One word of a specification: what it says, the Python that does it, and what it means."""

    text: str
    code: str
    meaning: Callable[..., Any]


def _numbered(text: str, code: str, meaning: Callable[[int], Callable[..., Any]], numbers: Sequence[int]) -> list[Part]:
    return [Part(text.format(n=n), code.format(n=n), meaning(n)) for n in numbers]


RESULTS = [
    Part("sum", "sum({items})", sum),
    Part("count", "len([{items}])", len),
    Part("largest", "max({items}, default=0)", lambda items: max(items, default=0)),
    Part("smallest", "min({items}, default=0)", lambda items: min(items, default=0)),
    Part("list", "[{items}]", list),
    Part("set", "sorted(set({items}))", lambda items: sorted(set(items))),
    Part("ordered list", "sorted({items})", sorted),
    Part("reversed list", "[{items}][::-1]", lambda items: items[::-1]),
]
FILTERS = [
    Part("all", "", lambda x: True),
    Part("even", " if x % 2 == 0", lambda x: x % 2 == 0),
    Part("odd", " if x % 2 == 1", lambda x: x % 2 == 1),
    Part("positive", " if x > 0", lambda x: x > 0),
    Part("negative", " if x < 0", lambda x: x < 0),
    *_numbered("above {n}", " if x > {n}", lambda n: lambda x: x > n, range(1, 10)),
    *_numbered("below {n}", " if x < {n}", lambda n: lambda x: x < n, range(1, 10)),
]
CHANGES = [
    Part("x", "x", lambda x: x),
    Part("-x", "-x", lambda x: -x),
    Part("x squared", "x * x", lambda x: x * x),
    Part("size of x", "abs(x)", abs),
    *_numbered("x plus {n}", "x + {n}", lambda n: lambda x: x + n, range(1, 10)),
    *_numbered("x minus {n}", "x - {n}", lambda n: lambda x: x - n, range(1, 10)),
    *_numbered("x times {n}", "x * {n}", lambda n: lambda x: x * n, range(2, 10)),
]


@dataclass(frozen=True, slots=True)
class Specification:
    """A function to write: which numbers of a list it takes, what it makes of each, and what it returns of them."""

    result: Part
    chosen: Part
    change: Part

    @property
    def text(self) -> str:
        """One line, as the prompt shows it: `largest of even: x times 3`."""
        return f"{self.result.text} of {self.chosen.text}: {self.change.text}"

    @property
    def demonstration(self) -> str:
        """A program that does it."""
        items = f"{self.change.code} for x in xs{self.chosen.code}"
        # Beside other arguments a generator needs its own brackets.
        items = f"({items})" if ", default" in self.result.code else items
        return f"def f(xs):\n    return {self.result.code.format(items=items)}\n"

    def __call__(self, numbers: Sequence[int]) -> Any:
        """What the function must return."""
        return self.result.meaning([self.change.meaning(x) for x in numbers if self.chosen.meaning(x)])

    def tests(self) -> dict[str, Any]:
        """Calls that tell the function from others: short and long lists, with both signs, repeated numbers and an empty list."""
        generator = random.Random(self.text)
        cases = [[]] + [[generator.randint(-12, 12) for _ in range(size)] for size in (3, 6, 9, 12)]
        cases.append([*range(-3, 12), 5, 5, -2])
        return {"type": "calls", "entry_point": "f", "cases": [{"args": [case], "expected": self(case)} for case in cases]}

    @property
    def split(self) -> Split:
        """Which split the specification belongs to, by a hash of its text: a tenth held out, a tenth for validation."""
        bucket = hashlib.sha256(self.text.encode()).digest()[0] / 256
        return "held_out" if bucket < 0.1 else "validation" if bucket < 0.2 else "train"


def specifications(split: Split, *, seed: int) -> list[Specification]:
    """Return every specification of a split, shuffled."""
    found = [
        specification
        for result in RESULTS
        for chosen in FILTERS
        for change in CHANGES
        if (specification := Specification(result, chosen, change)).split == split
    ]
    random.Random(f"{split}-{seed}").shuffle(found)
    return found
