"""Completions of one prompt: by asking the engine once, or by playing episodes with an environment.

In an episode tokens flow on unchanged from turn to turn. What the environment says is put behind them as the chat template writes it,
and is marked as not written by the policy; nothing the policy wrote is ever encoded again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rlvr.engines.protocol import Engine
from rlvr.environments.protocol import Environment, Turn
from rlvr.errors import EnvironmentFailed
from rlvr.seeding import derive_seed
from rlvr.types import Completion, Prompt, Sampling
from verifiers.errors import VerifierError
from verifiers.types import Message, Problem


@dataclass(frozen=True, slots=True)
class Sampled:
    """The prompt as the policy saw it, and what it wrote."""

    prompt: Prompt
    completions: list[Completion]


class Sampler(Protocol):
    """Draws the completions of a prompt."""

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Sampled:
        """Raises: VerifierError: an environment failed. EngineFailed: the engine did."""
        ...


@dataclass(frozen=True, slots=True)
class SingleTurn:
    """The prompt is answered once."""

    engine: Engine

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Sampled:
        return Sampled(prompt, await self.engine.generate(prompt.token_ids, sampling))


@dataclass(frozen=True, slots=True)
class Episodes:
    """Each completion is an episode: replies by the policy, answers by the environment, until it ends.

    `render` writes messages as a prompt; `answer` writes the environment's messages behind a reply whose tokens are given.
    `max_new_tokens` of a sampling bounds everything behind the prompt, the environment's words included.
    """

    engine: Engine
    environment: Environment
    render: Callable[[Problem], tuple[int, ...]]
    answer: Callable[[Sequence[Message], Sequence[Message], Sequence[int]], tuple[int, ...]]
    decode: Callable[[Sequence[int]], str]
    max_turns: int
    timeout_seconds: float

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Sampled:
        """See `Sampler.sample`; one prompt for the whole group."""
        messages = await self._within(self.environment.reset(prompt.problem), prompt.problem)
        opening = replace(prompt, token_ids=self.render(replace(prompt.problem, messages=messages)))
        async with asyncio.TaskGroup() as tasks:
            episodes = [tasks.create_task(self._play(opening, messages, _own(sampling, number))) for number in range(sampling.num_samples)]
        return Sampled(opening, [episode.result() for episode in episodes])

    async def _play(self, opening: Prompt, messages: Sequence[Message], sampling: Sampling) -> Completion:
        conversation = list(messages)
        token_ids: list[int] = []
        logprobs: list[float] = []
        written: list[bool] = []
        replies: list[Completion] = []
        for number in range(self.max_turns):
            turn_sampling = replace(sampling, max_new_tokens=sampling.max_new_tokens - len(token_ids), seed=_of_turn(sampling.seed, number))
            [reply] = await self.engine.generate((*opening.token_ids, *token_ids), turn_sampling)
            replies.append(reply)
            token_ids += reply.token_ids
            logprobs += reply.logprobs
            written += [True] * reply.num_tokens
            if reply.finish_reason != "stop" or number == self.max_turns - 1:
                break
            conversation.append({"role": "assistant", "content": reply.text})
            turn: Turn = await self._within(self.environment.step(opening.problem, conversation), opening.problem)
            if turn.done:
                break
            said = self.answer(conversation, turn.messages, reply.token_ids)
            if len(token_ids) + len(said) >= sampling.max_new_tokens:
                replies[-1] = replace(reply, finish_reason="length")  # Its answer has no place any more.
                break
            conversation += turn.messages
            token_ids += said
            logprobs += [0.0] * len(said)
            written += [False] * len(said)
        return Completion(
            text="\n\n".join(reply.text for reply in replies),
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            finish_reason=replies[-1].finish_reason,
            first_version=replies[0].first_version,
            last_version=replies[-1].last_version,
            written=tuple(written),
            transcript=self.decode(token_ids),
        )

    async def _within(self, work, problem: Problem):
        """Wait for the environment under its deadline; its failure is no fault of the policy."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await work
        except TimeoutError as error:
            raise VerifierError(
                f"the environment passed environment.timeout_seconds={self.timeout_seconds:g} on problem '{problem.id}'"
            ) from error
        except EnvironmentFailed as error:
            raise VerifierError(f"the environment failed on problem '{problem.id}': {error}") from error
        except VerifierError:
            raise
        except Exception as error:  # The plug-in boundary: its bug must not look like a wrong answer, nor end the run by itself.
            raise VerifierError(f"the environment raised {error!r} on problem '{problem.id}'") from error


def _own(sampling: Sampling, number: int) -> Sampling:
    """One episode's sampling, with a seed of its own."""
    seed = None if sampling.seed is None else derive_seed(sampling.seed, "episode", number)
    return replace(sampling, num_samples=1, seed=seed)


def _of_turn(seed: int | None, number: int) -> int | None:
    return None if seed is None else derive_seed(seed, "turn", number)
