"""Checks that every gold answer of a data set earns the reward: its own verifier must accept it, written out as an answer.

A gold answer that its verifier rejects, or cannot read, makes its row worthless for training: no response earns anything there.
Which field of a row holds what is guessed from the first rows where the settings do not say.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr.config import DataConfig, FieldMap
from rlvr.config_files import resolve
from rlvr.data.problems import ReadProblem, read_problems
from rlvr.data.rows import read_rows
from rlvr.errors import ConfigError, DataError
from rlvr.gold_check import has_written_gold, judge_gold, nearest_to_correct, written_gold
from rlvr.in_order import in_order
from rlvr.judge import Judge
from rlvr.response_lines import to_json
from rlvr.settings import Settings
from rlvr.tracking.progress import Progress
from rlvr.verify_file import VerifyJob
from verifiers.errors import VerifierError

QUESTIONS = ("question", "problem", "prompt", "messages")
ANSWERS = ("answer", "final_answer", "expected_answer", "ground_truth", "gold", "reference")
TESTS = ("tests", "test_list")
SOLUTIONS = ("solution", "code", "canonical_solution", "canonical")
ROWS_LOOKED_AT = 100
DATA_PREFIX = "data."


class ValidateSettings(Settings):
    """The settings that name the rows, under the names they have in a run's configuration."""

    data: DataConfig


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row whose gold answer cannot earn the reward. `outcome` is the verifier's, `error` where it could not judge, or `malformed`."""

    row: int
    id: str | None
    gold: str | None
    outcome: str
    explanation: str


@dataclass(frozen=True, slots=True)
class Validation:
    """What came of it: how many rows were tried, and which failed, in their order."""

    num_rows: int
    rejected: tuple[Rejected, ...]

    def describe(self, dataset: str, verifier: str) -> str:
        earning = self.num_rows - len(self.rejected)
        summary = f"{dataset}: {earning} of {self.num_rows} gold answers earn the reward of '{verifier}'"
        if not self.rejected:
            return summary
        kinds = Counter(rejected.outcome for rejected in self.rejected)
        return f"{summary}; {len(self.rejected)} cannot ({', '.join(f'{count} {outcome}' for outcome, count in kinds.most_common())})"


def validate_gold(config: DataConfig, job: VerifyJob, progress: Progress) -> Validation:
    """Judge the gold answer of every row, written in each form that a response may have; one form accepted is enough.

    Raises: DataError: the rows cannot be read. ConfigError: a setting is wrong. RegistryError: no such verifier.
    """
    judge = job.judge()
    rows = list(read_problems(config))
    rejected: list[Rejected] = []
    with progress.phase("judging gold answers", len(rows)) as advance:

        def take(found: Rejected | None) -> None:
            if found is not None:
                rejected.append(found)
            advance(1)

        asyncio.run(in_order(rows, lambda row: _try_row(row, judge), take, concurrency=job.concurrency))
    return Validation(len(rows), tuple(rejected))


def data_settings(dataset: str, overrides: Sequence[str]) -> tuple[DataConfig, tuple[str, ...]]:
    """Return the settings of a data set from its name and `data.…=value` overrides, and notes on the fields that were guessed.

    Raises: ConfigError: an override is wrong. DataError: the rows cannot be read, or hold no field under any of the usual names.
    """
    config = resolve(ValidateSettings, {"data": {"path": dataset}}, overrides).config.data
    given = config.fields.model_fields_set
    rows = list(itertools.islice(read_rows(config), ROWS_LOOKED_AT))
    samples = [row.values for row in rows if row.fault is None]
    if not samples:
        raise DataError(f"{config.path}: {f'row {rows[0].number}: {rows[0].fault}' if rows else 'it has no rows'}")
    names = {name: values[name] for values in reversed(samples) for name in values}  # With the first value each has.
    guessed: dict[str, Any] = {}
    if not given & {"question", "messages"}:
        question = _first(QUESTIONS, names, "question", config.path)
        guessed["question" if isinstance(names[question], str) else "messages"] = question
    tests = next((name for name in TESTS if name in names), None)
    if tests is not None and not given & {"answer", "reference", "tests"} and not any(name in names for name in ANSWERS):
        guessed["tests"] = tests
    if "tests" in given | set(guessed) and "solution" not in given:
        guessed["solution"] = _first(SOLUTIONS, names, "solution", config.path)
    if not (given | set(guessed)) & {"answer", "reference", "tests"}:
        answer = _first(ANSWERS, names, "answer", config.path)
        guessed["reference" if answer == "reference" or isinstance(names[answer], dict) else "answer"] = answer
    if "id" not in given and all(values.get("id") is not None for values in samples):
        guessed["id"] = "id"
    fields = FieldMap.model_validate({**config.fields.model_dump(include=given), **guessed})
    for purpose in ("question", "messages", "answer", "reference", "tests", "solution", "id", "tags"):
        name = getattr(fields, purpose)
        if purpose in given and name is not None and name not in names:
            raise DataError(f"{config.path}: no row has the field data.fields.{purpose}={name}; there are {_listed(names)}")
    notes = tuple(f"data.fields.{purpose}={name}" for purpose, name in guessed.items() if name != purpose)
    return config.model_copy(update={"fields": fields}), notes


def write_rejected(validation: Validation, output: Path) -> None:
    """Write the rows that failed, one object a line, nothing shortened.

    Raises: ConfigError: the file cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("".join(to_json(asdict(rejected)) + "\n" for rejected in validation.rejected), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror or error}") from error


async def _try_row(row: ReadProblem, judge: Judge) -> Rejected | None:
    problem = row.problem
    if problem is None:
        return Rejected(row.number, None, None, "malformed", row.fault)
    if not has_written_gold(problem):
        there = repr(problem.reference["answer"]) if "answer" in problem.reference else f"only {_listed(problem.reference)}"
        return Rejected(
            row.number,
            problem.id,
            None,
            "malformed",
            f"the reference must hold text or a number as 'answer', or a program as 'solution', but there is {there}",
        )
    gold = written_gold(problem)
    try:
        verdicts = await judge_gold(problem, judge)
    except VerifierError as error:
        return Rejected(row.number, problem.id, gold, "error", str(error))
    if any(verdict.outcome == "correct" for verdict in verdicts):
        return None
    best = nearest_to_correct(verdicts)
    return Rejected(row.number, problem.id, gold, best.outcome, best.explanation)


def _first(usual: Sequence[str], names: dict[str, Any], purpose: str, path: str) -> str:
    found = next((name for name in usual if name in names), None)
    if found is None:
        raise DataError(
            f"{path}: no row has a field {', '.join(usual[:-1])} or {usual[-1]}; there are {_listed(names)}: name data.fields.{purpose}=…"
        )
    return found


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
