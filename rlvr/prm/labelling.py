"""`rlvr prm label`: labels of steps without people, by Monte-Carlo rollouts (Math-Shepherd, arXiv:2312.08935).

Each beginning of a solution that ends with a step is continued several times, and an outcome verifier judges the whole. The last step has
the verdict of the solution itself. What the policy wrote is continued as its own tokens, never encoded again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlvr.answering import DEFAULT_MAX_NEW_TOKENS, Target, answered_by, asked_as, draw_of, find_target, hash_of, tokenizer_of
from rlvr.data.problems import load_problems
from rlvr.episodes import decoder
from rlvr.errors import ConfigError, DataError
from rlvr.evaluation.responders import build_prompt
from rlvr.judge import Judge
from rlvr.prm.config import LabelConfig
from rlvr.response_lines import WrittenResponse, field_of, read_records, to_json
from rlvr.rollouts.collector import first_failure
from rlvr.rollouts.continuation import JUDGED_AT_ONCE, Continuer, Judged
from rlvr.seeding import derive_seed
from rlvr.session import open_engine, prepare_process
from rlvr.step_tokens import step_token_ends
from rlvr.tracking.progress import Progress, open_progress
from rlvr.types import Prompt, Sampling
from verifiers.steps import split_steps, steps_of
from verifiers.text_cache import cache_key
from verifiers.types import FinishReason, Problem


@dataclass(frozen=True, slots=True)
class LabelResult:
    """How many problems, solutions and steps were labelled; `num_unjudged` rollouts the verifier could not judge and are in no label."""

    num_problems: int
    num_solutions: int
    num_steps: int
    num_right: int
    num_unjudged: int

    def describe(self, output: Path) -> str:
        unjudged = f"; {self.num_unjudged} rollouts could not be judged" if self.num_unjudged else ""
        return (
            f"{output}: {self.num_steps} labelled steps, {self.num_right} of them right, in {self.num_solutions} solutions "
            f"to {self.num_problems} problems{unjudged}"
        )


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution as tokens. `text` is what they decode to."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class StepRollouts:
    """The judged continuations of one beginning: so many of so many are right."""

    num_right: int
    num_judged: int
    num_unjudged: int

    @classmethod
    def of(cls, judged: Judged) -> StepRollouts:
        return cls(sum(verdict.outcome == "correct" for verdict in judged.verdicts), len(judged.verdicts), judged.num_unjudged)

    @property
    def hard(self) -> int | None:
        """Whether any leads to the answer; None where none was judged."""
        return int(self.num_right > 0) if self.num_judged else None

    @property
    def soft(self) -> float | None:
        """The share that does."""
        return self.num_right / self.num_judged if self.num_judged else None


def label(config: LabelConfig, output: Path, *, overwrite: bool = False) -> LabelResult:
    """Label the steps of solutions and write them in the format of `rlvr prm train`. Goes on where a killed one stopped.

    Raises: ConfigError, DataError, RegistryError: before anything is drawn. EngineFailed: nobody answers any more.
    """
    target = find_target(config.model)
    if target.is_service:
        raise ConfigError(
            f"{config.model.path} is a service that answers conversations; to continue a beginning token by token name the model itself, "
            "with engine.name=vllm_server for servers that `rlvr serve` started"
        )
    with open_progress(f"label · {target.model.path}") as progress:
        return asyncio.run(_label(config, output, target, progress, overwrite))


async def _label(config: LabelConfig, output: Path, target: Target, progress: Progress, overwrite: bool) -> LabelResult:
    prepare_process()
    assert config.verifier is not None
    judge = Judge.shared(config.verifier)
    tokenizer = tokenizer_of(target)
    data = config.data.of(config.path).model_copy(update={"limit": config.limit})
    asked = asked_as(data, target.run.data.instruction if target.run is not None else "", config, target)
    problems = load_problems(data).problems
    given = None if config.solutions is None else _read_solutions(Path(config.solutions), {problem.id for problem in problems})
    if given is not None:
        problems = [problem for problem in problems if problem.id in given]
    prompts = {problem.id: build_prompt(problem, asked, tokenizer) for problem in problems}
    sampling = replace(draw_of(config, target, DEFAULT_MAX_NEW_TOKENS), temperature=config.sampling.temperature or 1.0)
    file = _LabelFile(output, _key(config, target, sampling, asked), overwrite=overwrite)
    missing = [problem for problem in problems if problem.id not in file.done]
    async with open_engine(
        target.model,
        tokenizer,
        engine=config.engine,
        max_sequence_tokens=max(len(prompt.token_ids) for prompt in prompts.values()) + sampling.max_new_tokens,
        num_threads=config.num_threads,
        run_folder=output.parent / f"{output.stem}.engine",
        tell=progress.warn,
    ) as opened:
        labeller = Labeller(
            continuer=Continuer(opened.engine, judge, decoder(tokenizer), asyncio.Semaphore(JUDGED_AT_ONCE)),
            max_sequence_tokens=opened.max_sequence_tokens,
            sampling=sampling,
            num_rollouts=config.num_rollouts,
            separator=config.separator,
            encode=lambda text: tuple(tokenizer(text, add_special_tokens=False).input_ids),
        )
        places = asyncio.Semaphore(config.problems_at_once)
        with progress.phase("problems", len(problems)) as advance:
            advance(len(problems) - len(missing))

            async def one(problem: Problem) -> None:
                async with places:
                    file.append(await labeller.rows(problem, prompts[problem.id], None if given is None else given[problem.id]))
                advance(1)

            async with first_failure(), asyncio.TaskGroup() as tasks:
                for problem in missing:
                    tasks.create_task(one(problem))
    return _result(output)


@dataclass(frozen=True, slots=True)
class Labeller:
    """Solves problems, continues the beginnings of solutions, and judges what comes of them."""

    continuer: Continuer
    max_sequence_tokens: int
    sampling: Sampling
    num_rollouts: int
    separator: str | None
    encode: Callable[[str], tuple[int, ...]]

    async def rows(self, problem: Problem, prompt: Prompt, texts: Sequence[str] | None) -> list[dict[str, Any]]:
        """Return a row for each solution: those given as text, or new ones."""
        room = self.max_sequence_tokens - len(prompt.token_ids)
        if texts is not None:
            solutions = [self._solution(self.encode(text), "stop") for text in texts]
        elif room < 1:
            solutions = []
        else:
            draw = replace(
                self.sampling,
                max_new_tokens=min(self.sampling.max_new_tokens, room),
                seed=derive_seed(self.sampling.seed or 0, f"solutions to {problem.id}"),
            )
            drawn = await self.continuer.engine.generate(prompt.token_ids, draw)
            solutions = [self._solution(each.token_ids, each.finish_reason) for each in drawn]
        async with asyncio.TaskGroup() as tasks:
            labelled = [tasks.create_task(self._row(problem, prompt, number, each)) for number, each in enumerate(solutions)]
        # A problem too long to be asked leaves a row too, which says that it was looked at.
        return [each.result() for each in labelled] or [self._described(problem, 0, [], [])]

    def _solution(self, token_ids: tuple[int, ...], finish_reason: FinishReason) -> Solution:
        return Solution(token_ids, self.continuer.decode(token_ids), finish_reason)

    async def _row(self, problem: Problem, prompt: Prompt, number: int, solution: Solution) -> dict[str, Any]:
        ends = split_steps(solution.text, self.separator)
        token_ends = step_token_ends(solution.token_ids, ends, self.continuer.decode)
        async with asyncio.TaskGroup() as tasks:
            begun = [
                tasks.create_task(self._continued(problem, prompt, solution.token_ids[:end], (number, step)))
                for step, end in enumerate(token_ends[:-1])
            ]
            whole = tasks.create_task(self._finished(problem, solution)) if ends else None
        found = [each.result() for each in begun] + ([whole.result()] if whole is not None else [])
        return self._described(problem, number, steps_of(solution.text, ends), found)

    def _described(self, problem: Problem, number: int, steps: Sequence[str], found: Sequence[StepRollouts]) -> dict[str, Any]:
        return {
            "id": problem.id,
            "sample": number,
            "messages": [dict(message) for message in problem.messages],
            "steps": list(steps),
            "labels": [each.hard for each in found],
            "soft_labels": [each.soft for each in found],
            "rollouts": [each.num_judged for each in found],
            "unjudged": sum(each.num_unjudged for each in found),
        }

    async def _finished(self, problem: Problem, solution: Solution) -> StepRollouts:
        """The last step is as right as the solution; one that was cut off says nothing of it."""
        if solution.finish_reason != "stop":
            return StepRollouts(0, 0, 0)
        response = WrittenResponse(solution.text, "stop", len(solution.token_ids))
        return StepRollouts.of(await self.continuer.judged(problem, [response]))

    async def _continued(self, problem: Problem, prompt: Prompt, prefix: tuple[int, ...], place: tuple[int, int]) -> StepRollouts:
        room = min(self.max_sequence_tokens - len(prompt.token_ids) - len(prefix), self.sampling.max_new_tokens - len(prefix))
        if room < 1:
            return StepRollouts(0, 0, 0)
        seed = derive_seed(self.sampling.seed or 0, f"continuations of {problem.id}", *place)
        draw = replace(self.sampling, max_new_tokens=room, num_samples=self.num_rollouts, seed=seed)
        return StepRollouts.of(await self.continuer.continued(prompt, prefix, draw))


class _LabelFile:
    """The labelled solutions so far: the rows of a problem are written together, and half a line of a kill is cut off."""

    def __init__(self, path: Path, key: str, *, overwrite: bool) -> None:
        """Raises: ConfigError: the file holds rows with other settings. DataError: it is not one of labelled steps."""
        self._path = path
        self._key = key
        self.done: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite or not path.exists():
            path.write_bytes(b"")
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                identifier, key = str(row["id"]), row["key"]
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"{path}, line {number}: not a row that `rlvr prm label` wrote; give another --output") from error
            if key != self._key:
                raise ConfigError(
                    f"{path} holds labels of another model, or with other settings (problem {identifier!r}): give another --output, or "
                    "replace them with --overwrite"
                )
            self.done.add(identifier)
        if len(whole) < len(content):
            path.write_bytes(whole)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write all rows of one problem."""
        text = "".join(to_json(row | {"key": self._key}) + "\n" for row in rows)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


def _key(config: LabelConfig, target: Target, sampling: Sampling, asked: Any) -> str:
    """Name everything that labels depend on."""
    assert config.verifier is not None
    solutions = None if config.solutions is None else hashlib.sha256(Path(config.solutions).read_bytes()).hexdigest()
    how = [sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.top_k, sampling.num_samples, sampling.seed]
    return cache_key(
        answered_by(config, target, hash_of(config, target)),
        asked.model_dump(mode="json", exclude={"limit"}),
        how,
        [config.num_rollouts, config.separator, solutions],
        cache_key(config.verifier.name, config.verifier.options),
    )[:16]


def _read_solutions(path: Path, known: set[str]) -> dict[str, list[str]]:
    """Return the solutions by problem. Raises: DataError: a line is malformed, or names a problem that is not there."""
    solutions: dict[str, list[str]] = defaultdict(list)
    for record in read_records(path):
        identifier = str(field_of(record, "id", str | int, "text or a whole number"))
        if identifier not in known:
            raise DataError(f'{record.place}: "id" {identifier!r} is of no problem in --data (data.fields.id names its field of ids)')
        solutions[identifier].append(field_of(record, "response", str, "text"))
    if not solutions:
        raise DataError(f"{path}: there are no solutions")
    return solutions


def _result(output: Path) -> LabelResult:
    rows = [record.fields for record in read_records(output)]
    labels = [value for row in rows for value in row["labels"] if value is not None]
    return LabelResult(
        num_problems=len({row["id"] for row in rows}),
        num_solutions=sum(bool(row["steps"]) for row in rows),
        num_steps=len(labels),
        num_right=sum(labels),
        num_unjudged=sum(row["unjudged"] for row in rows),
    )
