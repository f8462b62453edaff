"""`rollouts/step_*.parquet`: what was sampled, judged and learned from in a step, one row a completion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlvr.errors import DataError


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One completion with its verdict. `reward` is the verifier's `score` after shaping, `advantage` the mean over its tokens."""

    step: int
    group_index: int
    problem_id: str
    prompt_text: str
    completion_text: str
    num_tokens: int
    finish_reason: str
    score: float
    reward: float
    advantage: float
    outcome: str
    extracted: str | None
    explanation: str
    mean_logprob: float
    first_version: int
    last_version: int


class RolloutTable:
    """The folder of a run's rollout tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, step: int, rows: Sequence[RolloutRow]) -> Path:
        """Write a step's table whole or not at all, replacing one already there; return its path."""
        import pyarrow
        from pyarrow import parquet

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(step)
        aside = path.with_name(path.name + ".new")
        columns = {field.name: [_storable(getattr(row, field.name)) for row in rows] for field in dataclasses.fields(RolloutRow)}
        parquet.write_table(pyarrow.table(columns, schema=_schema()), aside, compression="zstd")
        aside.replace(path)
        return path

    def read(self, step: int) -> list[RolloutRow]:
        """Return the rows of a step.

        Raises: DataError: there is no table of that step, or it is not a rollout table.
        """
        import pyarrow
        from pyarrow import parquet

        path = self.path(step)
        if not path.is_file():
            raise DataError(f"{self.folder}: no rollouts of step {step}; there are steps {_ranges(self.steps()) or 'none'}")
        try:
            records = parquet.read_table(path).to_pylist()
            return [RolloutRow(**record) for record in records]
        except (pyarrow.ArrowException, TypeError) as error:
            raise DataError(f"{path}: not a table of rollouts: {error}") from error

    def steps(self) -> list[int]:
        """Return the steps that have a table, in order."""
        return sorted(int(path.stem.removeprefix("step_")) for path in self.folder.glob("step_*.parquet"))

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}.parquet"


def _schema() -> object:
    import pyarrow

    types = {"int": pyarrow.int64(), "float": pyarrow.float64(), "str": pyarrow.string(), "str | None": pyarrow.string()}
    return pyarrow.schema([(field.name, types[str(field.type)]) for field in dataclasses.fields(RolloutRow)])


def _storable(value: object) -> object:
    """Escape lone surrogates, which UTF-8 cannot hold: a verifier's words may have any, and no run ends over them."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _ranges(steps: Sequence[int]) -> str:
    """Write sorted steps briefly: 1, 2, 3, 7 become `1-3, 7`; a regular spacing above 1 is listed."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and step == parts[-1][-1] + 1:
            parts[-1].append(step)
        else:
            parts.append([step])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
