"""Keeps training and held-out problems apart: no question, however often it is repeated, stands on both sides."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.config import HeldOutConfig
from rlvr.data.problems import load_problems
from rlvr.errors import ConfigError, DataError
from verifiers.types import Problem


@dataclass(frozen=True, slots=True)
class Split:
    """Problems to train on and problems to evaluate on; `num_leaking` problems were left out of training for asking a held-out question."""

    train: list[Problem]
    held_out: list[Problem]
    num_leaking: int


def split_held_out(problems: Sequence[Problem], held_out: HeldOutConfig, seed: int) -> Split:
    """Set aside what `held_out` asks for: its own data, `num_problems` of the training problems, or nothing.

    With both, `num_problems` of its own data are taken. Raises: ConfigError: more are asked for than there are. DataError: see
    `load_problems`, or nothing is left to train on.
    """
    if held_out.data is not None:
        separate = load_problems(held_out.data).problems
        if held_out.num_problems is not None:
            separate = hold_back(separate, held_out.num_problems, seed)
        return without_leaks(problems, separate)
    if held_out.num_problems is None:
        return Split(list(problems), [], 0)
    chosen = hold_back(problems, held_out.num_problems, seed)
    split = without_leaks(problems, chosen)
    return Split(split.train, chosen, split.num_leaking - len(chosen))


def hold_back(problems: Sequence[Problem], num_problems: int, seed: int) -> list[Problem]:
    """Choose `num_problems` different questions by their hash, so that the choice depends on no order; the first problem of each."""
    first_of: dict[str, Problem] = {}
    for problem in problems:
        first_of.setdefault(question_key(problem), problem)
    if num_problems > len(first_of):
        raise ConfigError(f"held_out.num_problems={num_problems}, but there are only {len(first_of)} different questions")
    ranked = sorted(first_of, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest())
    chosen = set(ranked[:num_problems])
    return [problem for key, problem in first_of.items() if key in chosen]


def without_leaks(problems: Sequence[Problem], held_out: Sequence[Problem]) -> Split:
    """Leave out of training every problem that asks a held-out question."""
    keys = {question_key(problem) for problem in held_out}
    train = [problem for problem in problems if question_key(problem) not in keys]
    if not train:
        raise DataError(f"all {len(problems)} training problems are held out; hold back fewer, or give held_out.data other data")
    return Split(train, list(held_out), len(problems) - len(train))


def question_key(problem: Problem) -> str:
    """Return the question as compared: all turns, without regard to case, white space and Unicode composition. Punctuation counts."""
    text = "\n".join(message["content"] for message in problem.messages)
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
