"""Answers that were paid for once: kept by model, prompt and sampling, so that judging anew or a larger suite does not draw them again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rlvr.errors import ConfigError
from rlvr.response_lines import WrittenResponse
from verifiers.errors import first_line
from verifiers.text_cache import TextCache, UnusableCache

FILE = "answers.sqlite"
MODEL_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py", ".tiktoken", ".gguf"})
"""Of the files that a model is made of: weights, configuration, tokenizer, templates, code."""


def cache_folder(chosen: str | None) -> Path:
    """Return the folder that was chosen, or rlvr's in the user's cache folder."""
    if chosen is not None:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlvr"


class ResponseCache:
    """A `TextCache` of answers; what is wrong with it is an error of the configuration."""

    def __init__(self, folder: Path) -> None:
        """Raises: ConfigError: the file cannot be made or read."""
        self._path = folder / FILE
        with self._usable():
            self._texts = TextCache(self._path, "answers")

    def get(self, key: str) -> list[WrittenResponse] | None:
        """Return the answers kept under a key, None where there are none. Raises: ConfigError: the file cannot be read."""
        with self._usable():
            text = self._texts.get(key)
        return None if text is None else [WrittenResponse(**fields) for fields in json.loads(text)]

    def put(self, key: str, answers: Sequence[WrittenResponse]) -> None:
        """Keep answers; of two that come at once under one key either stays. Raises: ConfigError: the file cannot be written."""
        with self._usable():
            self._texts.put(key, json.dumps([asdict(answer) for answer in answers]))

    def close(self) -> None:
        self._texts.close()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except UnusableCache as error:
            reason = error.__cause__ or error
            raise ConfigError(
                f"the cache {self._path} cannot be used ({reason}): set cache_folder to another folder, or cache=false"
            ) from error


def model_hash(path: str, revision: str | None) -> str:
    """Name the weights and the tokenizer at a path: a hash of the files in the folder, not below it, or the commit a Hugging Face name
    stands at.

    Raises: ConfigError: a Hugging Face name that can neither be looked up nor is in the local cache.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return f"{path}@{_commit(path, revision)}"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in MODEL_SUFFIXES and file.is_file():
            with file.open("rb") as content:
                digest.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return "sha256:" + digest.hexdigest()


def _commit(name: str, revision: str | None) -> str:
    """The commit that loading this name would take: the hub's, or without a network the one in the local cache."""
    from transformers.utils import cached_file, extract_commit_hash

    try:
        commit = extract_commit_hash(cached_file(name, "config.json", revision=revision), revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path={name!r} is no folder, cannot be looked up on Hugging Face ({first_line(error)}), and is not in the local cache"
        ) from error
    return str(commit)
