"""Scores the responses in a JSONL file with a verifier, many at a time, and writes them in the order they came."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, get_args

from rlvr.errors import ConfigError, DataError
from rlvr.judge import Judge
from rlvr.tracking.progress import Advance, Progress
from verifiers.errors import VerifierError
from verifiers.registry import build
from verifiers.types import FinishReason, Problem, Verdict


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Which verifier, with which options, and how patiently."""

    verifier: str
    options: Mapping[str, Any]
    timeout_seconds: float = 60.0
    concurrency: int = 32


@dataclass(frozen=True, slots=True)
class Tally:
    """How many lines were judged, with which outcomes, and how many could not be."""

    outcomes: Mapping[str, int]
    total_score: float
    num_errors: int

    def describe(self, output: Path) -> str:
        judged = sum(self.outcomes.values())
        kinds = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items(), key=lambda item: -item[1]))
        mean = f", mean score {self.total_score / judged:.4g}" if judged else ""
        failed = f'; {self.num_errors} could not be judged: see "error" there' if self.num_errors else ""
        return f"{output}: judged {judged}{f' ({kinds})' if kinds else ''}{mean}{failed}"


@dataclass(frozen=True, slots=True)
class WrittenResponse:
    """A response as a line of a file gives it."""

    text: str
    finish_reason: FinishReason
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line to judge: the object as it was read, the problem and the response in it."""

    record: Mapping[str, Any]
    problem: Problem
    response: WrittenResponse


def verify_file(source: Path, output: Path, job: VerifyJob, progress: Progress) -> Tally:
    """Judge every line and write each with its verdict; the output appears when all are done.

    Raises: DataError: the input is unreadable; names the line. ConfigError: the output cannot be written. RegistryError: no such verifier.
    """
    if output.exists() and output.samefile(source):
        raise ConfigError(f"--output {output} is the input; give another file")
    num_lines = sum(1 for _ in read_lines(source))  # Every line is checked before the first is judged.
    judge = Judge(build(job.verifier, job.options), job.verifier, job.timeout_seconds, max_attempts=1)
    aside = output.with_name(output.name + ".new")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file, progress.phase("judging", num_lines) as advance:
            tally = asyncio.run(_judge_all(read_lines(source), judge, job.concurrency, file, advance))
        aside.replace(output)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror or error}") from error
    return tally


def read_lines(source: Path) -> Iterator[Line]:
    """Yield the lines of a file; blank lines are passed over.

    Raises: DataError: the file or a line is unreadable; names line and field.
    """
    try:
        with source.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield _read_line(text, f"{source}, line {number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from error


def _read_line(text: str, place: str) -> Line:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{place}: not a JSON object but {text.strip()[:60]!r}")
    for field, kind, called in (("id", str | int, "text or a whole number"), ("response", str, "text"), ("reference", dict, "an object")):
        if field not in record:
            there = ", ".join(map(repr, record)) or "nothing"
            raise DataError(f'{place}: the field "{field}" is missing; there are {there}')
        if not isinstance(record[field], kind) or isinstance(record[field], bool):
            raise DataError(f'{place}: "{field}" must be {called}, got {_short(record[field])}')
    messages = record.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages):
        raise DataError(f'{place}: "messages" must be a list of objects with role and content, got {_short(messages)}')
    finish_reason = record.get("finish_reason") or "stop"
    if finish_reason not in get_args(FinishReason):
        raise DataError(f'{place}: "finish_reason" must be one of {", ".join(get_args(FinishReason))}, got {_short(finish_reason)}')
    num_tokens = record.get("num_tokens")
    if num_tokens is not None and (not isinstance(num_tokens, int) or isinstance(num_tokens, bool) or num_tokens < 0):
        raise DataError(f'{place}: "num_tokens" must be a whole number, got {_short(num_tokens)}')
    response = WrittenResponse(record["response"], finish_reason, len(record["response"].split()) if num_tokens is None else num_tokens)
    return Line(record, Problem(str(record["id"]), tuple(messages), record["reference"]), response)


async def _judge_all(lines: Iterator[Line], judge: Judge, concurrency: int, file: TextIO, advance: Advance) -> Tally:
    """Judge a sliding window of lines; each is written once all before it are."""
    outcomes: Counter[str] = Counter()
    total_score, num_errors = 0.0, 0
    window: deque[asyncio.Task[dict[str, Any]]] = deque()

    async def write_first() -> None:
        nonlocal total_score, num_errors
        result = await window.popleft()
        file.write(_to_json(result) + "\n")
        if "error" in result:
            num_errors += 1
        else:
            outcomes[result["verdict"]["outcome"]] += 1
            total_score += result["verdict"]["score"]
        advance(1)

    async with asyncio.TaskGroup() as tasks:
        for line in lines:
            window.append(tasks.create_task(_judge_line(line, judge)))
            if len(window) >= concurrency:
                await write_first()
        while window:
            await write_first()
    return Tally(outcomes, total_score, num_errors)


async def _judge_line(line: Line, judge: Judge) -> dict[str, Any]:
    kept = {key: value for key, value in line.record.items() if key not in ("verdict", "error")}
    start = time.perf_counter()
    try:
        (verdict,) = await judge(line.problem, [line.response])
    except VerifierError as error:
        return {**kept, "error": str(error)}
    return {**kept, "verdict": _verdict_record(verdict, time.perf_counter() - start)}


def _verdict_record(verdict: Verdict, seconds: float) -> dict[str, Any]:
    return {
        "score": float(verdict.score),
        "outcome": verdict.outcome,
        "extracted": verdict.extracted,
        "explanation": verdict.explanation,
        "seconds": round(seconds, 6),
    }


def _to_json(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # A lone surrogate can only be written escaped.
        return json.dumps(record)
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
