"""Reads the rows of a data source: local .jsonl, .json and .parquet files, saved `datasets` folders, and Hugging Face names.

Files are read here rather than by `datasets`, so that a fault names its file and row. What a row means is not decided here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.config import DataConfig
from rlvr.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

FILE_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `number` counts from 1 and is the line number in a .jsonl file. `fault` says why it could not be read, if it could not."""

    number: int
    values: Mapping[str, Any]
    fault: str | None = None


def read_rows(config: DataConfig) -> Iterator[Row]:
    """Yield the rows of `config.path`, in order; a row that cannot be read comes with its fault.

    Raises: DataError: there is no such file or dataset, or the file as a whole is unreadable.
    """
    path = Path(config.path).expanduser()
    if path.suffix in FILE_SUFFIXES:
        yield from _read_file(path)
    elif path.is_file():
        raise DataError(f"data.path={config.path!r} is a {path.suffix or 'nameless'} file; readable are {', '.join(FILE_SUFFIXES)}")
    else:
        for number, values in enumerate(_load_dataset(config, path), start=1):
            yield Row(number, values)


def _read_file(path: Path) -> Iterator[Row]:
    if not path.is_file():
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"current folder: {Path.cwd()}"
        raise DataError(f"there is no file {str(path)!r} (data.path); {hint}")
    if path.suffix == ".jsonl":
        yield from _read_jsonl(path)
    elif path.suffix == ".json":
        yield from _read_json(path)
    else:
        yield from _read_parquet(path)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                yield Row(number, {}, f"is not JSON: {error}")
                continue
            yield _object_row(number, values)


def _read_json(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_text("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; one object a line belongs into a .jsonl file") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of objects, but holds {type(rows).__name__}")
    for number, values in enumerate(rows, start=1):
        yield _object_row(number, values)


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet after row {number}: {error}") from error


def _object_row(number: int, values: object) -> Row:
    if isinstance(values, dict):
        return Row(number, values)
    return Row(number, {}, f"must be an object, but is {json.dumps(values)[:80]}")


def _load_dataset(config: DataConfig, path: Path) -> Dataset:
    import datasets

    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(path))
            if isinstance(loaded, datasets.Dataset):
                return loaded
            if config.split not in loaded:
                raise DataError(f"{config.path!r} has no split {config.split!r}; it has: {', '.join(loaded)} (data.split)")
            return loaded[config.split]
        return datasets.load_dataset(config.path, config.subset, split=config.split, revision=config.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        place = f"subset {config.subset!r}, split {config.split!r}, revision {config.revision!r}"
        raise DataError(
            f"cannot load the dataset {config.path!r} ({place}): {error}; "
            f"data.path is a Hugging Face dataset name or a local {', '.join(FILE_SUFFIXES)} file"
        ) from error
