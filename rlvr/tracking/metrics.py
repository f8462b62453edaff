"""`metrics.jsonl`: one JSON object a step, the truth about a run; every other tracker is a copy of it.

Two runs with the same seed write the same bytes except under `time/`. Writing never rounds: floats appear as their shortest exact form.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rlvr.errors import DataError
from rlvr.tracking.names import TIME_PREFIX


@dataclass(frozen=True, slots=True)
class MetricsRow:
    """The numbers of one step. A number that was not finite is None."""

    step: int
    values: Mapping[str, float | None]

    def to_json(self, *, with_time: bool = True) -> str:
        """Return the row as its line of the file: the step first, then names in alphabetical order."""
        kept = {name: _finite(value) for name, value in sorted(self.values.items()) if with_time or not name.startswith(TIME_PREFIX)}
        return json.dumps({"step": self.step, **kept}, ensure_ascii=False, allow_nan=False)


class MetricsLog:
    """Appends rows to `metrics.jsonl`; each row is on disk before `write` returns, so a killed run loses at most the step it was in.

    On resume, rows after the checkpoint's step are cut away, and so is a line that a kill left half written. A run must therefore
    write the row of a step before it saves that step's checkpoint.
    """

    def __init__(self, path: Path, *, resume_step: int | None = None) -> None:
        """Open the log; `resume_step` is the step of the checkpoint to go on from, None starts an empty log."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(path) if row.step <= resume_step] if resume_step is not None and path.exists() else []
        _replace(path, (row.to_json() for row in kept))
        self._last_step = kept[-1].step if kept else -1
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float | None]) -> MetricsRow:
        """Append one step's numbers.

        Raises: ValueError: the step is not after the last one written.
        """
        if step <= self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}; a step is written once, in order")
        row = MetricsRow(step, dict(values))
        self._file.write(row.to_json() + "\n")
        self._file.flush()
        self._last_step = step
        return row

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_metrics(path: Path) -> list[MetricsRow]:
    """Return the rows of a log, without a last line that a kill left half written.

    Raises: DataError: a line before the last is not a JSON object with a step.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows: list[MetricsRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            step = record.pop("step")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a row of metrics ({error}): {line[:80]!r}") from error
        rows.append(MetricsRow(step, record))
    return rows


def comparable_lines(path: Path) -> list[str]:
    """Return the log's lines without what depends on the clock; equal for two runs of one seed."""
    return [row.to_json(with_time=False) for row in read_metrics(path)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _replace(path: Path, lines: Iterable[str]) -> None:
    aside = path.with_name(path.name + ".new")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
