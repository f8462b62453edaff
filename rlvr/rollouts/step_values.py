"""Monte-Carlo values of the states between a completion's steps, for VinePPO (arXiv:2410.01679, section 4).

A state is the prompt and the tokens of a completion up to the end of a step; its value is the mean score of rollouts from there. They only
tell values: nothing is learned from them. A state of which no rollout can be judged has no value, and its group is not judged either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rlvr.algorithm_settings import VineConfig
from rlvr.rollouts.continuation import Continuer, Judged
from rlvr.seeding import derive_seed
from rlvr.step_tokens import step_token_ends
from rlvr.types import Completion, GroupValues, Prompt, RolloutGroup, Sampling, StepValues
from verifiers.errors import VerifierError
from verifiers.steps import split_steps


@dataclass(frozen=True, slots=True)
class ValueEstimator:
    """Asks the policy what becomes of the beginnings of its completions; equal beginnings within a group are asked once."""

    continuer: Continuer
    config: VineConfig
    sampling: Sampling
    seed: int

    async def values_of(self, group: RolloutGroup, ends: Sequence[tuple[int, ...]]) -> GroupValues:
        """Return the values of a group's states; `ends` are those of `step_ends` for each completion.

        Raises: VerifierError: no rollout from a state could be judged. EngineFailed: the engine failed; both within a group of errors.
        """
        tokens = [rollout.completion.token_ids for rollout in group.rollouts]
        places: dict[tuple[int, ...], tuple[int, int]] = {}
        for number, (token_ids, own) in enumerate(zip(tokens, ends, strict=True)):
            for step, end in enumerate(own[:-1], start=1):
                places.setdefault(token_ids[:end], (number, step))
        prompt = group.rollouts[0].prompt
        async with asyncio.TaskGroup() as tasks:
            asked = {
                prefix: tasks.create_task(self._rollouts(prompt, prefix, derive_seed(self.seed, "value of a step", group.index, *place)))
                for prefix, place in places.items()
            }
        judged = {prefix: task.result() for prefix, task in asked.items()}
        values = {prefix: fmean(verdict.score for verdict in found.verdicts) for prefix, found in judged.items()}
        return GroupValues(
            steps=tuple(
                StepValues(own, tuple(values[token_ids[:end]] for end in own[:-1])) for token_ids, own in zip(tokens, ends, strict=True)
            ),
            num_rollouts=len(judged) * self.config.num_rollouts,
            num_unjudged=sum(found.num_unjudged for found in judged.values()),
            num_tokens=sum(found.num_tokens for found in judged.values()),
        )

    def step_ends(self, completion: Completion) -> tuple[int, ...]:
        """Return the exclusive end of each step among the tokens. A step has tokens of its own; a blank completion is one step."""
        text = self.continuer.decode(completion.token_ids)
        ends = step_token_ends(completion.token_ids, split_steps(text, self.config.separator), self.continuer.decode)
        return join_steps(sorted({*ends, completion.num_tokens}), self.config.max_steps)

    async def _rollouts(self, prompt: Prompt, prefix: tuple[int, ...], seed: int) -> Judged:
        room = self.sampling.max_new_tokens - len(prefix)
        judged = await self.continuer.continued(
            prompt, prefix, replace(self.sampling, max_new_tokens=room, num_samples=self.config.num_rollouts, seed=seed)
        )
        if not judged.verdicts:
            raise VerifierError(
                f"none of the {judged.num_unjudged} rollouts from the first {len(prefix)} tokens of a completion of problem "
                f"'{prompt.problem.id}' could be judged, so the value of what follows is not known"
            )
        return judged


def join_steps(ends: Sequence[int], max_steps: int) -> tuple[int, ...]:
    """Return at most so many ends, evenly chosen, the last among them.

    Example: ends 1, 2, 3, 4, 5 joined to two steps give 2, 5.
    """
    if len(ends) <= max_steps:
        return tuple(ends)
    return tuple(ends[len(ends) * number // max_steps - 1] for number in range(1, max_steps + 1))
