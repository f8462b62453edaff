"""How a solution in steps is written for a process reward model; training and scoring share it, and `prm.json` beside the model keeps it.

Imports no model library: the tokenizer is passed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from verifiers.types import Message

FORMAT_FILE = "prm.json"


@dataclass(frozen=True, slots=True)
class PrmFormat:
    """What a process reward model reads and says.

    `separator` follows each step, whose last token is where the model judges; class `right_label` is the probability that the step is
    right. The question is written by the tokenizer's chat template or by `plain_template`.
    """

    separator: str
    right_label: int = 1
    template: Literal["chat", "plain"] = "plain"
    plain_template: str = "{question}\n"

    def __post_init__(self) -> None:
        wrong = [field.name for field in fields(self) if not isinstance(getattr(self, field.name), int if field.type == "int" else str)]
        if wrong or not self.separator or self.template not in ("chat", "plain") or "{question}" not in self.plain_template:
            raise ValueError(f"{self} is no format of a process reward model")

    def save(self, folder: Path) -> None:
        (folder / FORMAT_FILE).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_format(path: Path) -> PrmFormat:
    """Return the format in a `prm.json`.

    Raises: ValueError: it holds none. OSError: it cannot be read.
    """
    try:
        return PrmFormat(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no format of a process reward model: {error}") from error


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The tokens of a question and its solution, and where in them each step ends: the places of the steps' last tokens. The first step
    begins at `first_step`, each other one behind the end of the one before."""

    token_ids: tuple[int, ...]
    step_places: tuple[int, ...]
    first_step: int


def write_input(messages: Sequence[Message], steps: Sequence[str], tokenizer: Any, form: PrmFormat) -> ModelInput:
    """Return a solution as tokens: the question, then each step without the blanks around it and with the separator behind it.

    Steps are encoded one by one, so that what follows a step never changes its tokens.

    Raises: ValueError: the tokenizer has no tokens for the separator, or refuses the messages.
    """
    separator = _encode(form.separator, tokenizer)
    if not separator:
        raise ValueError(f"the tokenizer has no tokens for the separator {form.separator!r}: choose another")
    token_ids = _question_ids(messages, tokenizer, form)
    first_step = len(token_ids)
    places = []
    for ids in _encode_each([_bare(step, form.separator) for step in steps], tokenizer):
        token_ids += [*ids, *separator]
        places.append(len(token_ids) - 1)
    return ModelInput(tuple(token_ids), tuple(places), first_step)


def _bare(step: str, separator: str) -> str:
    step, mark = step.strip(), separator.strip()
    while mark and step.endswith(mark):
        step = step.removesuffix(mark).rstrip()
    return step


def _question_ids(messages: Sequence[Message], tokenizer: Any, form: PrmFormat) -> list[int]:
    if form.template == "chat":
        if not tokenizer.chat_template:
            raise ValueError("the question is to be written by the tokenizer's chat template, and it has none: take the plain template")
        from jinja2 import TemplateError

        try:
            text = tokenizer.apply_chat_template([dict(each) for each in messages], tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ValueError(f"the tokenizer's chat template refuses the messages: {error}") from error
        return _encode(text, tokenizer)
    token_ids = _encode(form.plain_template.replace("{question}", "\n\n".join(each["content"] for each in messages)), tokenizer)
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and token_ids[:1] != [bos] and tokenizer("").input_ids[:1] == [bos]
    return [bos, *token_ids] if adds_bos else token_ids


def _encode(text: str, tokenizer: Any) -> list[int]:
    return _encode_each([text], tokenizer)[0]


def _encode_each(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    # A lone surrogate, which no tokenizer takes, becomes a question mark.
    plain = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    return [list(ids) for ids in tokenizer(plain, add_special_tokens=False).input_ids] if plain else []
