"""What every run stands on: the compute thread, the loaded model, its policy and the engine that samples from it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig, ModelConfig, OptimizerConfig, RunConfig, WeightSyncConfig
from rlvr.engines.protocol import Engine, EngineSetting, decoding_dtype
from rlvr.policy.loading import LoadedModel, load_model
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.registries import ENGINES
from rlvr.types import Sampling
from rlvr.weight_sync import Probe, PushedWeights, SharedModule, WeightSync, default_tolerance


@dataclass(frozen=True, slots=True)
class Session:
    """The parts of a run that own threads and memory; closed together. `max_sequence_tokens` is the longest that may be asked for."""

    compute: ComputeThread
    loaded: LoadedModel
    policy: TorchPolicy
    engine: Engine
    max_sequence_tokens: int
    run_folder: Path

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
    tell: Callable[[str], None] = print,
) -> AsyncIterator[Session]:
    """Load the model and build policy and engine around it; everything is closed when the block ends."""
    _bound_kernel_caches()
    from transformers.utils import logging

    logging.disable_progress_bar()  # Its bars would break into the run's own display.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # It would fill every new tensor before it is written: a guard against reading unwritten memory, paid for in each step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    with ComputeThread(num_threads=num_threads) as compute:
        loaded = await compute.run(load_model, model, seed=seed)
        policy = await compute.run(
            TorchPolicy,
            loaded,
            optimizer=optimizer,
            temperature=temperature,
            num_steps=num_updates,
            reference=needs_reference,
            tokens_per_microbatch=tokens_per_microbatch,
            seed=seed,
        )
        max_sequence_tokens = min(
            max_sequence_tokens, getattr(loaded.model.config.get_text_config(), "max_position_embeddings", max_sequence_tokens)
        )
        setting = EngineSetting(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            model_config=model,
            config=engine,
            sync=sync,
            compute=compute,
            compute_dtype=loaded.compute_dtype,
            max_sequence_tokens=max_sequence_tokens,
            run_folder=run_folder,
            tell=tell,
        )
        sampler: Engine = await ENGINES.get(engine.name).open(setting)
        try:
            yield Session(compute, loaded, policy, sampler, max_sequence_tokens, run_folder)
        finally:
            await sampler.close()


def open_session_of(
    config: RunConfig, *, run_folder: Path, num_updates: int, tell: Callable[[str], None] = print
) -> AbstractAsyncContextManager[Session]:
    """Open the session that a training run's configuration asks for; `tell` hears what a person should know of the engine."""
    return open_session(
        config.model,
        seed=config.seed,
        optimizer=config.optimizer,
        # A replay samples held-out problems only, for which the policy's own module is enough.
        engine=EngineConfig() if config.rollouts.replay else config.engine,
        sync=config.weight_sync,
        temperature=config.sampling.temperature,
        num_updates=num_updates,
        needs_reference=config.algorithm.needs_reference,
        tokens_per_microbatch=config.batch.tokens_per_microbatch,
        max_sequence_tokens=config.data.max_prompt_tokens + config.sampling.max_new_tokens,
        run_folder=run_folder,
        num_threads=config.num_threads,
        deterministic=config.deterministic,
        tell=tell,
    )


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
        adapter_folder=session.run_folder / "adapters",
        kept_adapters=config.batch.max_staleness + 3,
    )


def _bound_kernel_caches() -> None:
    """Keep oneDNN's compiled kernels, about 1 MB each and one for every shape of matrix, from taking gigabytes.

    The caches hold 1024 each by default. Measured 2026-11-21, arithmetic on one thread, 80 steps: 1.7 GB resident with 1024, 1.1 GB with
    256, CPU time within 3 %. Read when the first kernel is built; a value set by the user stays.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "256")
