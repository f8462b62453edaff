"""Accuracy on problems that are never trained on, greedy and sampled, through the engine and the verifier that training uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from rlvr.distributed import ALONE, Ranks
from rlvr.rollouts.collector import Judge, first_failure
from rlvr.rollouts.sampler import Sampler
from rlvr.seeding import derive_seed
from rlvr.types import Completion, Prompt, Sampling
from verifiers.errors import VerifierError
from verifiers.types import Verdict

PROBLEMS_AT_ONCE = 1024
"""Problems handed to the engine together. All are answered before the next come, so that what is decoded together, and with it every
rounding, depends on the problems alone."""


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """Shares of correct completions. `sampled_accuracy` is None when nothing was sampled; `num_failed` problems could not be judged."""

    greedy_accuracy: float
    sampled_accuracy: float | None
    num_problems: int
    num_failed: int
    mean_tokens: float
    truncated_share: float

    @property
    def score(self) -> float:
        """What the best checkpoint is chosen by: the sampled accuracy, the greedy one where nothing was sampled."""
        return self.greedy_accuracy if self.sampled_accuracy is None else self.sampled_accuracy

    def metrics(self) -> dict[str, float]:
        """The result under the names of docs/metrics.md."""
        values = {f"held_out/{field.name}": getattr(self, field.name) for field in fields(self)}
        return {name: float(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float | None]) -> HeldOutResult | None:
        """Read back what `metrics` wrote; None where there is nothing of it."""
        if "held_out/num_problems" not in metrics:
            return None
        values = {field.name: metrics.get(f"held_out/{field.name}") for field in fields(cls)}
        return cls(**{**values, "num_problems": int(values["num_problems"]), "num_failed": int(values["num_failed"])})

    def summary(self) -> str:
        """The accuracies in words."""
        sampled = "" if self.sampled_accuracy is None else f", {self.sampled_accuracy:.1%} sampled"
        failed = f", {self.num_failed} could not be judged" if self.num_failed else ""
        return f"{self.greedy_accuracy:.1%} greedy{sampled} of {self.num_problems} held-out problems{failed}"


async def evaluate_held_out(
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler,
    judge: Judge,
    sampling: Sampling,
    num_samples: int,
    seed: int,
    advance: Callable[[int], None],
    ranks: Ranks = ALONE,
) -> HeldOutResult:
    """Answer each problem once greedily and `num_samples` times as in training; `advance` is told of each problem done here.

    Each rank answers its share of the problems; all get the result over all of them.

    Raises: VerifierError: not one problem could be judged.
    """
    failures: list[VerifierError] = []

    async def answer(index: int, prompt: Prompt) -> tuple[list[Completion], list[Verdict]] | None:
        draws = [replace(sampling, temperature=0.0, num_samples=1)]
        if num_samples > 0:
            draws.append(replace(sampling, num_samples=num_samples, seed=derive_seed(seed, "held-out", index)))
        try:
            async with first_failure(), asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(sampler.sample(prompt, draw)) for draw in draws]
            completions = [completion for task in running for completion in task.result().completions]
            return completions, await judge(prompt.problem, completions)
        except VerifierError as error:
            failures.append(error)
            return None
        finally:
            advance(1)

    answers: list[asyncio.Task[tuple[list[Completion], list[Verdict]] | None]] = []
    numbered = list(enumerate(prompts))[ranks.rank :: ranks.size]
    for start in range(0, len(numbered), PROBLEMS_AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            answers += [tasks.create_task(answer(index, prompt)) for index, prompt in numbered[start : start + PROBLEMS_AT_ONCE]]
    judged = [result for task in answers if (result := task.result()) is not None]
    tallies = await asyncio.to_thread(ranks.everyones, _Tally.of(judged, num_failed=len(failures)))
    tally = sum(tallies[1:], tallies[0])
    if not tally.num_judged:
        raise failures[0] if failures else VerifierError("not one held-out problem could be judged, on any rank")
    return tally.result()


@dataclass(frozen=True, slots=True)
class _Tally:
    """Counts over problems that were judged; of several ranks they add up."""

    num_judged: int
    num_failed: int
    num_greedy_correct: int
    num_sampled: int
    num_sampled_correct: int
    num_completions: int
    num_tokens: int
    num_truncated: int

    @classmethod
    def of(cls, judged: list[tuple[list[Completion], list[Verdict]]], *, num_failed: int) -> _Tally:
        sampled = [verdict for _, verdicts in judged for verdict in verdicts[1:]]
        completions = [completion for completions, _ in judged for completion in completions]
        return cls(
            num_judged=len(judged),
            num_failed=num_failed,
            num_greedy_correct=sum(verdicts[0].outcome == "correct" for _, verdicts in judged),
            num_sampled=len(sampled),
            num_sampled_correct=sum(verdict.outcome == "correct" for verdict in sampled),
            num_completions=len(completions),
            num_tokens=sum(completion.num_tokens for completion in completions),
            num_truncated=sum(completion.finish_reason == "length" for completion in completions),
        )

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def result(self) -> HeldOutResult:
        return HeldOutResult(
            greedy_accuracy=self.num_greedy_correct / self.num_judged,
            sampled_accuracy=self.num_sampled_correct / self.num_sampled if self.num_sampled else None,
            num_problems=self.num_judged + self.num_failed,
            num_failed=self.num_failed,
            mean_tokens=self.num_tokens / self.num_completions,
            truncated_share=self.num_truncated / self.num_completions,
        )
