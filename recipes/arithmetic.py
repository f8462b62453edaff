"""The arithmetic task from nothing: problems, worked demonstrations, a character tokenizer and a small Qwen2 model.

Shared by `arithmetic_grpo.py` and `grpo_from_scratch.py`. Nothing here trains and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import AddedToken
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

Split = Literal["train", "validation", "held_out"]

PAD, EOS = "<pad>", "<eos>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class Sum:
    """One addition problem, how a careful pupil writes it out, and its answer."""

    left: int
    right: int

    @property
    def question(self) -> str:
        return f"{self.left}+{self.right}="

    @property
    def answer(self) -> str:
        return str(self.left + self.right)

    @property
    def demonstration(self) -> str:
        """The answer with every column and its carry written out, from the right.

        385+347 gives 5+7+0=12, then 8+4+1=13, then 3+3+1=07: digit, digit, carry, and their sum in two digits, of which the first is the
        next carry and the second a digit of the answer. All columns are equally long, so that a digit needed later is always equally far.
        """
        columns, carry, left, right = [], 0, self.left, self.right
        while left or right:
            total = left % 10 + right % 10 + carry
            columns.append(f"{left % 10}+{right % 10}+{carry}={total:02d}")
            carry, left, right = total // 10, left // 10, right // 10
        return f"<think>{' '.join(columns)}</think><answer>{self.answer}</answer>"

    @property
    def split(self) -> Split:
        """Which split the problem belongs to, by a hash of its question: 10 % held out, 10 % validation. Splits cannot overlap."""
        bucket = hashlib.sha256(self.question.encode()).digest()[0] / 256
        return "held_out" if bucket < 0.1 else "validation" if bucket < 0.2 else "train"


COLUMN = re.compile(r"(\d)\+(\d)\+(\d)=(\d)(\d)")


def steps_are_right(problem: Sum, steps: Sequence[str]) -> list[bool]:
    """Return for each step of a response, which a blank ends, whether it follows from the question and the step before it.

    A step is one column: the digits of its place, the carry that the step before wrote down, and their sum. The first one opens the
    thought; the last one closes it and gives the answer that the columns spell. What follows rightly from a wrong step is right.

    Example: 47+18 as "<think>7+8+0=14 ", "4+1+1=06</think><answer>64</answer>": the first step is wrong, the second is not.
    """
    left, right = str(problem.left)[::-1], str(problem.right)[::-1]
    verdicts, carry, spelled = [], "0", ""
    for number, step in enumerate(steps):
        opens, last = number == 0, number == len(left) - 1
        text, closes, answer = step.strip().removeprefix("<think>" if opens else "").partition("</think>")
        column = COLUMN.fullmatch(text) if number < len(left) else None
        is_right = step.startswith("<think>") == opens and bool(closes) == last and column is not None
        if column is not None:
            is_right &= column.groups()[:3] == (left[number], right[number], carry)
            is_right &= sum(map(int, column.groups()[:3])) == int(column[4] + column[5])
            carry, spelled = column[4], column[5] + spelled
        if last:
            is_right &= answer == f"<answer>{carry.removeprefix('0')}{spelled}</answer>"
        verdicts.append(is_right)
    return verdicts


def with_other_digits(text: str, generator: random.Random, *, chance: float) -> str:
    """Return the text with each of its digits changed to another with this chance; the first of a number becomes no 0.

    Example: "47+18=" may give "97+13=".
    """

    def changed(found: re.Match[str]) -> str:
        leads = found.start() == 0 or not text[found.start() - 1].isdigit()
        others = [digit for digit in string.digits[leads:] if digit != found[0]]
        return generator.choice(others) if generator.random() < chance else found[0]

    return re.sub(r"\d", changed, text)


def sums(split: Split, *, seed: int, digits: tuple[int, int] = (2, 3)) -> Iterator[Sum]:
    """Yield sums of one split for ever, both operands of the same number of digits, which is between the two given.

    The *length* is drawn first: were the numbers drawn at once, short ones would be too rare to be learned.
    """
    generator = random.Random(f"{split}-{seed}")
    while True:
        length = generator.randint(*digits)
        low, high = 10 ** (length - 1), 10**length - 1
        problem = Sum(generator.randint(low, high), generator.randint(low, high))
        if problem.split == split:
            yield problem


def distinct_sums(split: Split, count: int, *, seed: int, digits: tuple[int, int] = (2, 3)) -> list[Sum]:
    """Return the first `count` different sums of a split.

    Raises: ValueError: the split has too few, or so few that drawing them all would take for ever.
    """
    share = 0.8 if split == "train" else 0.1
    num_existing = int(share * sum((9 * 10 ** (length - 1)) ** 2 for length in range(digits[0], digits[1] + 1)))
    if count > 0.8 * num_existing:
        raise ValueError(f"{count} different sums asked for, but '{split}' has about {num_existing} of {digits[0]} to {digits[1]} digits")
    found: dict[Sum, None] = {}
    for problem in sums(split, seed=seed, digits=digits):
        found.setdefault(problem)
        if len(found) == count:
            return list(found)
    raise AssertionError("`sums` never ends")


def build_tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer with one token for each printable ASCII character, the line break and each tag.

    Transformers reads any tokenizer beside a Qwen2 model as a `Qwen2Tokenizer`, so this is one: byte-level, without merges.
    """
    characters = string.ascii_letters + string.digits + string.punctuation + "\u0120\u010a"  # byte-level names of blank and line break
    vocabulary = {token: index for index, token in enumerate([PAD, EOS, *TAGS, *characters])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=PAD, pad_token=PAD, eos_token=EOS, padding_side="left")
    # The tags are ordinary tokens, so that decoding keeps them and a verifier sees them.
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return tokenizer


def build_model(tokenizer: Qwen2Tokenizer, *, seed: int, hidden_size: int = 128, num_layers: int = 4) -> Qwen2ForCausalLM:
    """Return a freshly initialised Qwen2 model; the default sizes make 0.8 million parameters."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The model's initialisation draws from torch's global generator; it is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
