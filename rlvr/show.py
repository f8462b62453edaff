"""Prints what a run sampled: prompts, completions and verdicts of one step, for reading in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from rlvr.errors import DataError
from rlvr.setting_paths import suggest
from rlvr.tracking.rollout_table import RolloutRow, RolloutTable

Order = Literal["group", "score", "reward", "advantage", "length"]

KEYS: dict[Order, Callable[[RolloutRow], float]] = {
    "group": lambda row: row.group_index,
    "score": lambda row: row.score,
    "reward": lambda row: row.reward,
    "advantage": lambda row: row.advantage,
    "length": lambda row: row.num_tokens,
}
STYLES = {"correct": "green", "partial": "yellow"}


def show_rollouts(
    run: Path,
    *,
    step: int | None = None,
    problem: str | None = None,
    order: Order = "group",
    limit: int = 16,
    console: Console | None = None,
) -> None:
    """Print a step's completions, each group's prompt once where they are in the order of groups.

    Raises: DataError: there is no such run, step or problem.
    """
    console = console if console is not None else Console(highlight=False)
    table = RolloutTable(run / "rollouts")
    steps = table.steps()
    if not steps:
        why = (
            "there is no such folder"
            if not run.is_dir()
            else "it has no rollouts yet (tracking.rollouts_every sets how often they are saved)"
        )
        raise DataError(f"{run}: {why}")
    chosen = steps[-1] if step is None else step
    rows = table.read(chosen)
    shown = sorted(select(rows, problem, chosen), key=KEYS[order])[:limit]
    console.print(Rule(f"step {chosen}"))
    console.print(Text(summarise(rows)), soft_wrap=not console.is_terminal)
    last_group: int | None = None
    for row in shown:
        if row.group_index != last_group:
            console.print(Rule(Text(f"problem {row.problem_id}"), align="left", style="dim"))
            console.print(Text(row.prompt_text + "\n"), soft_wrap=not console.is_terminal)
            last_group = row.group_index
        for line in _completion(row):
            console.print(line, soft_wrap=not console.is_terminal)
    if len(shown) < len(rows):
        hidden = len(rows) - len(shown)
        console.print(Text(f"{hidden} more in this step (--limit, --problem, --sort); steps saved: {steps[0]} to {steps[-1]}", style="dim"))


def select(rows: Sequence[RolloutRow], problem: str | None, step: int) -> list[RolloutRow]:
    """Return the rows of one problem, or all.

    Raises: DataError: the step has no such problem.
    """
    if problem is None:
        return list(rows)
    ids = sorted({row.problem_id for row in rows})
    if problem not in ids:
        near = suggest(problem, ids, otherwise=f"; there are {', '.join(ids[:8])}{' …' if len(ids) > 8 else ''}")
        raise DataError(f"step {step} has no problem '{problem}'{near}")
    return [row for row in rows if row.problem_id == problem]


def summarise(rows: Sequence[RolloutRow]) -> str:
    """Return one line on all completions of a step."""
    if not rows:
        return "no completions"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(row.outcome for row in rows).most_common())
    groups = len({row.group_index for row in rows})
    mean_reward, mean_tokens = fmean(row.reward for row in rows), fmean(row.num_tokens for row in rows)
    return f"{len(rows)} completions in {groups} groups: {outcomes}; mean reward {mean_reward:.3g}, mean length {mean_tokens:.0f} tokens"


def _completion(row: RolloutRow) -> list[Text]:
    numbers = f"score {row.score:g}  reward {row.reward:g}  advantage {row.advantage:+.3g}  {row.num_tokens} tokens"
    versions = str(row.first_version) if row.first_version == row.last_version else f"{row.first_version}-{row.last_version}"
    head = Text.assemble(
        (f"{row.outcome}  ", STYLES.get(row.outcome, "red")),
        (f"{numbers}  finish {row.finish_reason}  mean log-prob {row.mean_logprob:.3f}  policy version {versions}", "dim"),
    )
    parts = [head, Text(row.completion_text)]
    if row.extracted is not None:
        parts.append(Text.assemble(("extracted: ", "dim"), row.extracted))
    if row.explanation:
        parts.append(Text.assemble(("explanation: ", "dim"), row.explanation))
    return [*parts, Text()]
