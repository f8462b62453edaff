"""How a run's completions are drawn: one reply to each prompt, or episodes with the environment its configuration names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rlvr.config import RunConfig
from rlvr.data.chat import answer_ids, render
from rlvr.engines.protocol import Engine
from rlvr.environments.protocol import Environment
from rlvr.errors import ConfigError
from rlvr.judge import Judge
from rlvr.registries import ENVIRONMENTS
from rlvr.rollouts.collector import Collector
from rlvr.rollouts.continuation import JUDGED_AT_ONCE, Continuer
from rlvr.rollouts.gathering import Gathering
from rlvr.rollouts.sampler import Episodes, Sampler, SingleTurn
from rlvr.rollouts.step_values import ValueEstimator
from rlvr.session import Session
from rlvr.step_tokens import Decode
from rlvr.types import Prompt, Sampling
from verifiers.types import Message, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_environment(config: RunConfig) -> Environment:
    """Raises: RegistryError: there is no such environment. ConfigError: its options are wrong."""
    assert config.environment is not None
    try:
        return ENVIRONMENTS.get(config.environment.name)(**config.environment.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"environment.options={config.environment.options} do not fit '{config.environment.name}': {error}") from error


def build_sampler(config: RunConfig, session: Session) -> Sampler:
    """Return what draws a run's completions from its session's engine."""
    return build_sampler_of(config, session.engine, session.loaded.tokenizer)


def build_sampler_of(config: RunConfig | None, engine: Engine, tokenizer: PreTrainedTokenizerBase) -> Sampler:
    """Return what draws completions from an engine as a run does; without a run, one reply to each prompt."""
    if config is None or config.environment is None:
        return SingleTurn(engine)

    def prompt_ids(problem: Problem) -> tuple[int, ...]:
        return render(problem, tokenizer, config.data)

    def said_ids(conversation: Sequence[Message], answer: Sequence[Message], reply_ids: Sequence[int]) -> tuple[int, ...]:
        return answer_ids(conversation, answer, reply_ids, tokenizer, config.data)

    return Episodes(
        engine=engine,
        environment=build_environment(config),
        render=prompt_ids,
        answer=said_ids,
        decode=lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False),
        max_turns=config.environment.max_turns,
        timeout_seconds=config.environment.timeout_seconds,
    )


def build_collector(config: RunConfig, session: Session, sampler: Sampler, prompt_at: Callable[[int], Prompt], judge: Judge) -> Collector:
    """Return what makes a run's groups: the sampler draws, the judge judges, and where the advantage needs values the engine is asked."""
    decode, sampling = decoder(session.loaded.tokenizer), sampling_of(config)
    values = None
    if config.algorithm.needs_values:
        continuer = Continuer(session.engine, judge, decode, asyncio.Semaphore(JUDGED_AT_ONCE))
        values = ValueEstimator(continuer, config.algorithm.vine, sampling, config.seed)
    return Collector(
        prompt_at=prompt_at,
        sampler=sampler,
        judge=judge,
        sampling=sampling,
        seed=config.seed,
        decode=decode,
        greedy_baseline=config.algorithm.needs_greedy_baseline,
        step_advantage=config.algorithm.step_advantage,
        values=values,
        # With staleness groups come and go one by one; other engines decode as they are asked, and would only wait.
        gathering=Gathering() if values and session.engine.shares_weights and config.batch.max_staleness == 0 else None,
    )


def decoder(tokenizer: PreTrainedTokenizerBase) -> Decode:
    """Return what makes text of a reply's tokens as every engine does: special tokens are left out."""
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True)


def sampling_of(config: RunConfig) -> Sampling:
    """How a run draws its completions, a group at a time."""
    return Sampling(
        max_new_tokens=config.sampling.max_new_tokens,
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        top_k=config.sampling.top_k,
        num_samples=config.batch.group_size,
    )
