"""Reads labelled answers: responses, or bare answers, with the gold answer and whether a person or a source says that they are right.

Every fault names file, line and field, before anything is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.errors import DataError
from rlvr.response_lines import (
    Record,
    WrittenResponse,
    field_of,
    fields_there,
    read_messages,
    read_records,
    read_response,
    read_tags,
    short_repr,
)
from verifiers.types import Message, Problem

BARE_ANSWER = "\\boxed{{{answer}}}"
"""How a bare answer is written as a response: a form that the extractions `strict`, `lenient` and `boxed` read."""
NO_GROUP = "(none)"


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A response and whether it is right; a label of None is undecided: judged, but not scored."""

    record: Mapping[str, Any]
    problem: Problem
    response: WrittenResponse
    label: bool | None
    group: str

    @property
    def gold(self) -> str:
        """The gold answer as a person may read it."""
        reference = self.problem.reference
        return str(reference["answer"] if "answer" in reference else dict(reference))


def read_labelled(source: Path, by: str) -> list[LabelledRow]:
    """Read every row; `by` names the field whose values group them.

    Raises: DataError: the file or a line is unreadable, no row has a label, or none has the field `by` though it is not `kind`.
    """
    records = list(read_records(source))
    rows = [_read_row(record, by) for record in records]
    if not rows:
        raise DataError(f"{source}: it has no rows")
    if all(row.label is None for row in rows):
        raise DataError(f'{source}: every "label" is null, so there is nothing to score; write true or false')
    if by != "kind" and all(row.group == NO_GROUP for row in rows):
        raise DataError(f'{source}: no row has a field "{by}" to group by (--by {by}); the first has {fields_there(records[0])}')
    return rows


def _read_row(record: Record, by: str) -> LabelledRow:
    fields = record.fields
    if "label" not in fields:
        raise DataError(f'{record.place}: the field "label" is missing (true, false or null); there are {fields_there(record)}')
    label = fields["label"]
    if label is not None and not isinstance(label, bool):
        raise DataError(f'{record.place}: "label" must be true, false or null, got {short_repr(label)}')
    identifier = fields.get("id")
    problem = Problem(str(record.number if identifier is None else identifier), _messages(record), _reference(record), read_tags(record))
    group = fields.get(by)
    return LabelledRow(fields, problem, read_response(record, _response_text(record)), label, NO_GROUP if group is None else str(group))


def _reference(record: Record) -> Mapping[str, Any]:
    if (record.fields.get("gold") is None) == (record.fields.get("reference") is None):
        raise DataError(
            f'{record.place}: give either "gold" (the right answer) or "reference" (an object, what the verifier reads); '
            f"there are {fields_there(record)}"
        )
    if record.fields.get("reference") is not None:
        return field_of(record, "reference", dict, "an object")
    return {"answer": field_of(record, "gold", str | int | float, "text or a number")}


def _response_text(record: Record) -> str:
    if (record.fields.get("response") is None) == (record.fields.get("answer") is None):
        raise DataError(
            f'{record.place}: give either "response" (a whole response) or "answer" (a bare answer); there are {fields_there(record)}'
        )
    if record.fields.get("response") is not None:
        return field_of(record, "response", str, "text")
    return BARE_ANSWER.format(answer=field_of(record, "answer", str | int | float, "text or a number"))


def _messages(record: Record) -> tuple[Message, ...]:
    """Return the turns, or the question in `problem` or `question` as the one turn."""
    messages = read_messages(record)
    if messages:
        return messages
    question = next((record.fields[name] for name in ("problem", "question") if isinstance(record.fields.get(name), str)), None)
    return ({"role": "user", "content": question},) if question else ()
