"""`rlvr rollout`: samples and scores groups with a run's own model, engine, data and verifier, and learns nothing.

What it writes can be learned from with `rollouts.replay`, so that a sampling problem and a learning problem can be told apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rlvr.algorithms import AlgorithmConfig
from rlvr.config import RunConfig
from rlvr.credit import scores_are_informative
from rlvr.episodes import build_collector, build_sampler
from rlvr.errors import ConfigError
from rlvr.in_order import in_order
from rlvr.judge import Judge
from rlvr.rollouts.group_file import DumpFacts, GroupDump
from rlvr.run_data import load_run_data
from rlvr.session import open_session_of
from rlvr.tracking.progress import Progress, open_progress
from rlvr.types import RolloutGroup
from verifiers.errors import VerifierError
from verifiers.registry import build


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """What was sampled, over all groups that could be judged."""

    num_groups: int
    num_failed: int
    mean_score: float
    accuracy: float
    informative_share: float
    mean_tokens: float
    truncated_share: float
    tokens_per_second: float
    outcomes: dict[str, int]

    def describe(self) -> str:
        """A few lines for a person."""
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items(), key=lambda each: -each[1]))
        failed = f"; {self.num_failed} groups could not be judged" if self.num_failed else ""
        return (
            f"{self.num_groups} groups{failed}: mean score {self.mean_score:.3f}, accuracy {self.accuracy:.1%} ({outcomes})\n"
            f"informative groups {self.informative_share:.1%}, completions of {self.mean_tokens:.1f} tokens on average, "
            f"{self.truncated_share:.1%} truncated, {self.tokens_per_second:.0f} tokens/s"
        )


def roll_out(config: RunConfig, *, num_groups: int, output: Path) -> RolloutSummary:
    """Sample and score the first groups of the run's prompt stream and write them to a folder.

    Raises: ConfigError: the folder holds something, or a setting is wrong. DataError: the data is. VerifierError: no group could be judged.
    """
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"--output {output} is not empty: name a new folder")
    judge = Judge.of(build(config.verifier.name, config.verifier.options), config.verifier)
    with open_progress(f"rollout · {output}") as progress:
        return asyncio.run(_roll_out(config, num_groups, output, judge, progress))


async def _roll_out(config: RunConfig, num_groups: int, output: Path, judge: Judge, progress: Progress) -> RolloutSummary:
    async with open_session_of(config, run_folder=output, num_updates=1, tell=progress.warn) as session:
        data = load_run_data(config, session.loaded.tokenizer)
        await session.bring_engine(0)
        collector = build_collector(config, session, build_sampler(config, session), data.prompt_at, judge)
        groups: list[RolloutGroup] = []
        failures: list[VerifierError] = []

        async def collect(index: int) -> RolloutGroup | VerifierError:
            try:
                return await collector.collect(index)
            except VerifierError as error:
                return error

        began = time.perf_counter()
        with progress.phase("groups", num_groups) as advance:

            def take(found: RolloutGroup | VerifierError) -> None:
                groups.append(found) if isinstance(found, RolloutGroup) else failures.append(found)
                advance(1)

            await in_order(range(num_groups), collect, take, concurrency=2 * config.batch.prompts_per_step)
        seconds = time.perf_counter() - began
    if not groups:
        raise failures[0]
    per_step = config.batch.prompts_per_step
    dump = GroupDump(output, DumpFacts(off_policy=True, groups_per_step=per_step))
    for step, first in enumerate(range(0, len(groups), per_step), start=1):
        dump.write(step, groups[first : first + per_step])
    return _summary(groups, len(failures), seconds, config.algorithm)


def _summary(groups: list[RolloutGroup], num_failed: int, seconds: float, algorithm: AlgorithmConfig) -> RolloutSummary:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    num_tokens = sum(rollout.completion.num_tokens for rollout in rollouts)
    return RolloutSummary(
        num_groups=len(groups),
        num_failed=num_failed,
        mean_score=fmean(rollout.verdict.score for rollout in rollouts),
        accuracy=fmean(rollout.verdict.outcome == "correct" for rollout in rollouts),
        informative_share=fmean(scores_are_informative(group, algorithm) for group in groups),
        mean_tokens=num_tokens / len(rollouts),
        truncated_share=fmean(rollout.completion.finish_reason == "length" for rollout in rollouts),
        tokens_per_second=num_tokens / seconds,
        outcomes=dict(Counter(rollout.verdict.outcome for rollout in rollouts)),
    )
