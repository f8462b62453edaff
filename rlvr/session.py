"""What every run stands on: the compute thread, the loaded model, its policy and the engine that samples from it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlvr.compute import ComputeThread
from rlvr.config import DeepSpeedConfig, EngineConfig, ModelConfig, OptimizerConfig, RunConfig, WeightSyncConfig
from rlvr.distributed import ALONE, Ranks
from rlvr.engines.protocol import Engine, EngineSetting, decoding_dtype
from rlvr.errors import ConfigError
from rlvr.policy.deepspeed_policy import DeepSpeedPolicy
from rlvr.policy.loading import LoadedModel, load_model, model_outline
from rlvr.policy.packed_policy import PackedPolicy, plain_weights, whole_copy
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.registries import ENGINES
from rlvr.types import Sampling
from rlvr.weight_sync import Probe, PushedWeights, SharedModule, WeightSync, default_tolerance


@dataclass(frozen=True, slots=True)
class Session:
    """The parts of a run that own threads and memory; closed together. `max_sequence_tokens` is the longest that may be asked for."""

    compute: ComputeThread
    loaded: LoadedModel
    policy: PackedPolicy
    implicit_policy: PackedPolicy | None
    """The implicit reward model and its frozen start, where the algorithm learns rewards."""
    engine: Engine
    max_sequence_tokens: int
    own_folder: Path
    """Where engine and weight sync may keep files of this rank."""
    ranks: Ranks

    async def bring_engine(self, version: int) -> None:
        """Bring the engine to the policy's weights, without the checks of a `WeightSync`."""
        await self.engine.load_weights(() if self.engine.shares_weights else self.policy.weights(), version)


@asynccontextmanager
async def open_session(
    model: ModelConfig,
    *,
    seed: int,
    optimizer: OptimizerConfig,
    engine: EngineConfig,
    sync: WeightSyncConfig,
    temperature: float,
    num_updates: int,
    needs_reference: bool,
    tokens_per_microbatch: int,
    max_sequence_tokens: int,
    run_folder: Path,
    num_threads: int | None,
    deterministic: bool,
    implicit_optimizer: OptimizerConfig | None = None,
    deepspeed: DeepSpeedConfig | None = None,
    ranks: Ranks = ALONE,
    tell: Callable[[str], None] = print,
) -> AsyncIterator[Session]:
    """Load the model and build policy and engine around it; everything is closed when the block ends.

    With `deepspeed`, the policy is one of all ranks, which `joined_ranks` gave; the engine is each rank's own. With `implicit_optimizer`
    the model is loaded a second time, as an implicit reward model that learns with it.
    """
    prepare_process()
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # It would fill every new tensor before it is written: a guard against reading unwritten memory, paid for in each step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    with ComputeThread(num_threads=num_threads) as compute:
        loaded = await compute.run(load_model, model, seed=seed)
        own_folder = run_folder if ranks.size == 1 else run_folder / f"rank_{ranks.rank:05d}"
        # Weights that are divided, or packed, cannot be sampled from as they are.
        own_copy = loaded.is_quantized or (deepspeed is not None and deepspeed.zero_stage == 3)
        sampled_from = await compute.run(whole_copy, loaded) if own_copy and engine.name == "transformers" else loaded.model
        build = partial(
            TorchPolicy if deepspeed is None else partial(DeepSpeedPolicy, config=deepspeed, ranks=ranks),
            num_steps=num_updates,
            tokens_per_microbatch=tokens_per_microbatch,
            seed=seed,
        )
        policy = await compute.run(build, loaded, optimizer=optimizer, temperature=temperature, reference=needs_reference)
        implicit_policy = None
        if implicit_optimizer is not None:
            second = await compute.run(load_model, model, seed=seed)
            implicit_policy = await compute.run(build, second, optimizer=implicit_optimizer, temperature=1.0, reference=True)
        max_sequence_tokens = min(max_sequence_tokens, _context(loaded.model, max_sequence_tokens))
        setting = EngineSetting(
            model=sampled_from,
            tokenizer=loaded.tokenizer,
            model_config=model,
            config=engine,
            sync=sync,
            compute=compute,
            compute_dtype=loaded.compute_dtype,
            max_sequence_tokens=max_sequence_tokens,
            run_folder=own_folder,
            shares_weights=not own_copy,
            tell=tell,
        )
        sampler: Engine = await ENGINES.get(engine.name).open(setting)
        try:
            yield Session(compute, loaded, policy, implicit_policy, sampler, max_sequence_tokens, own_folder, ranks)
        finally:
            await sampler.close()


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """An engine that samples from a model nobody trains. `max_sequence_tokens` is the longest that may be asked for."""

    engine: Engine
    max_sequence_tokens: int


@asynccontextmanager
async def open_engine(
    model: ModelConfig,
    tokenizer: Any,
    *,
    engine: EngineConfig,
    max_sequence_tokens: int,
    num_threads: int | None,
    run_folder: Path,
    ranks: Ranks = ALONE,
    tell: Callable[[str], None] = print,
) -> AsyncIterator[OpenEngine]:
    """Open an engine on a model as it lies on disk; closed when the block ends.

    vLLM in the process reads the weights itself; to servers they are sent. With several ranks each has an engine, or servers, of its own.
    """
    prepare_process()
    with ComputeThread(num_threads=num_threads) as compute:
        own = engine.name == "vllm"
        loaded = await compute.run(model_outline if own else load_model, model)
        longest = min(max_sequence_tokens, _context(loaded.model, max_sequence_tokens))
        sampler: Engine = await ENGINES.get(engine.name).open(
            EngineSetting(
                model=loaded.model,
                tokenizer=tokenizer,
                model_config=model,
                config=_engine_of(ranks, engine) if ranks.size > 1 else engine,
                sync=WeightSyncConfig(),
                compute=compute,
                compute_dtype=loaded.compute_dtype,
                max_sequence_tokens=longest,
                run_folder=run_folder if ranks.size == 1 else run_folder / f"rank_{ranks.rank:05d}",
                tell=tell,
            )
        )
        try:
            if not own:
                await sampler.load_weights(() if sampler.shares_weights else plain_weights(loaded.model), 0)
            yield OpenEngine(sampler, longest)
        finally:
            await sampler.close()


def open_session_of(
    config: RunConfig, *, run_folder: Path, num_updates: int, ranks: Ranks | None = None, tell: Callable[[str], None] = print
) -> AbstractAsyncContextManager[Session]:
    """Open the session that a training run's configuration asks for; `tell` hears what a person should know of the engine.

    `ranks` are those that train together; None where nothing is trained, and one process is enough.
    """
    # A replay samples held-out problems only, for which the policy's own module is enough.
    engine = EngineConfig() if config.rollouts.replay else config.engine
    sync = config.weight_sync
    if ranks is not None and ranks.size > 1:
        engine, sync = _engine_of(ranks, engine), _sync_of(ranks, sync)
    return open_session(
        config.model,
        seed=config.seed,
        optimizer=config.optimizer,
        engine=engine,
        sync=sync,
        temperature=config.sampling.temperature,
        num_updates=num_updates,
        needs_reference=config.algorithm.needs_reference,
        tokens_per_microbatch=config.batch.tokens_per_microbatch,
        max_sequence_tokens=config.data.max_prompt_tokens + max(_longest_answers(config)),
        run_folder=run_folder,
        num_threads=config.num_threads,
        deterministic=config.deterministic,
        implicit_optimizer=_implicit_optimizer(config) if ranks is not None else None,
        deepspeed=config.deepspeed if ranks is not None else None,
        ranks=ranks or ALONE,
        tell=tell,
    )


def _implicit_optimizer(config: RunConfig) -> OptimizerConfig | None:
    """How the implicit reward model learns: at a constant rate of its own, otherwise as the policy does."""
    if not config.algorithm.learns_rewards:
        return None
    implicit = config.algorithm.implicit
    own = {"learning_rate": implicit.learning_rate, "max_grad_norm": implicit.max_grad_norm, "schedule": "constant", "warmup_steps": 0}
    return config.optimizer.model_copy(update=own)


def _longest_answers(config: RunConfig) -> list[int]:
    """What is sampled at most, in training and on benchmarks."""
    return [config.sampling.max_new_tokens, *(each.max_new_tokens or 0 for each in config.evaluations)]


def _engine_of(ranks: Ranks, config: EngineConfig) -> EngineConfig:
    """Each rank samples from servers of its own, and brings its own to the new weights.

    Raises: ConfigError: there are fewer servers than ranks.
    """
    urls = config.servers.urls
    if config.name != "vllm_server":
        return config
    if len(urls) < ranks.size:
        raise ConfigError(
            f"engine.servers.urls names {len(urls)} servers for {ranks.size} processes, which sample from servers of their own: start at "
            f"least {ranks.size} (rlvr serve --num-servers {ranks.size}), or train on fewer processes"
        )
    return config.model_copy(update={"servers": config.servers.model_copy(update={"urls": urls[ranks.rank :: ranks.size]})})


def _sync_of(ranks: Ranks, config: WeightSyncConfig) -> WeightSyncConfig:
    """Each rank has a part of the shared folder for itself."""
    if config.folder is None:
        return config
    return config.model_copy(update={"folder": str(Path(config.folder) / f"rank_{ranks.rank:05d}")})


def sync_tolerance(session: Session, config: RunConfig) -> float:
    """The mean difference of log-probs, nats, that is no fault: the configured one, or what the two arithmetics allow."""
    policy_dtype = session.loaded.compute_dtype
    return config.weight_sync.tolerance or default_tolerance(policy_dtype, decoding_dtype(config.engine, policy_dtype))


def open_weight_sync(session: Session, config: RunConfig, prompts: Sequence[Sequence[int]], sampling: Sampling) -> WeightSync:
    """Return what brings the session's engine to the policy's weights; `prompts` are what its probe is made of."""
    if session.engine.shares_weights:
        return SharedModule(session.engine)
    return PushedWeights(
        session.engine,
        session.policy,
        session.compute,
        Probe.of(prompts, sampling, max_sequence_tokens=session.max_sequence_tokens),
        config=config.weight_sync,
        tolerance=sync_tolerance(session, config),
        idle_during_update=config.batch.max_staleness == 0,
        adapter_folder=session.own_folder / "adapters",
        kept_adapters=config.batch.max_staleness + 3,
        ranks=session.ranks,
    )


def _context(model: Any, otherwise: int) -> int:
    """How many tokens a model takes."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", otherwise)


def prepare_process() -> None:
    """Settle what torch and transformers read once, before a model is loaded."""
    _bound_kernel_caches()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # Else DeepSpeed warns that it finds none, when transformers imports it.
    from transformers.utils import logging

    logging.disable_progress_bar()  # Its bars would break into the run's own display.


def _bound_kernel_caches() -> None:
    """Keep oneDNN's compiled kernels, about 1 MB each and one for every shape of matrix, from taking gigabytes.

    The caches hold 1024 each by default. Measured 2026-11-21, arithmetic on one thread, 80 steps: 1.7 GB resident with 1024, 1.1 GB with
    256, CPU time within 3 %. Read when the first kernel is built; a value set by the user stays.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "256")
