"""How the policy's weights reach the engine after each step, and how that is verified.

A sync that went wrong silently (stale weights, a stale tied projection, a stale prefix cache) makes every ratio wrong and learns nothing.
So after the first sync, and every few, the engine writes completions of a fixed probe and its log-probs are held against the policy's.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from rlvr.compute import ComputeThread
from rlvr.config import WeightSyncConfig
from rlvr.distributed import ALONE, Ranks
from rlvr.engines.protocol import Engine, Replica, TakesAdapters
from rlvr.errors import EngineFailed, WeightSyncFailed, WeightSyncMismatch
from rlvr.policy.protocol import Policy
from rlvr.rollouts.samples import written_sample
from rlvr.types import Completion, Sampling

FLOAT32_TOLERANCE = 1e-3
BFLOAT16_TOLERANCE = 0.05
"""Nats, mean over the probe. Measured with vLLM 0.32 on a CPU: below 1e-5 in float32 and 0.01 in bfloat16; stale weights give 0.4."""
PROBE_TOKENS = 192
"""Longer than a block of vLLM's prefix cache (128 tokens on a CPU, 16 on a GPU), so that a cache that outlived its weights shows."""
PROBE_NEW_TOKENS = 16
DEADLINE_SLACK = 1.5
"""How much longer than one server may take all of an engine's together may."""

Written = tuple[tuple[int, ...], Completion]
"""A prompt and what an engine wrote behind it."""


class WeightSync(Protocol):
    """Brings an engine to the policy's current weights."""

    version: int
    """The version of the weights the engine samples with."""
    last_difference: float | None
    """What the last publish's check found, nats, mean over the probe; None where it did not check."""

    async def publish(self, version: int) -> None:
        """Return once everything sampled from now on is sampled with the policy's current weights, to be called `version`."""
        ...

    async def before_update(self) -> None:
        """Called before an update: an engine that will not be asked until the next publish gives its memory back."""
        ...


class SharedModule:
    """For an engine that generates with the policy's own module: there is nothing to move, only the version to state."""

    last_difference: float | None = None

    def __init__(self, engine: Engine) -> None:
        self.version = 0
        self._engine = engine

    async def publish(self, version: int) -> None:
        await self._engine.load_weights((), version)
        self.version = version

    async def before_update(self) -> None:
        """The module is needed."""


class PushedWeights:
    """For an engine with weights of its own: sends the whole state dict, under a deadline, and verifies it."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        compute: ComputeThread,
        probe: Probe,
        *,
        config: WeightSyncConfig,
        tolerance: float,
        idle_during_update: bool,
        adapter_folder: Path,
        kept_adapters: int = 3,
        ranks: Ranks = ALONE,
    ) -> None:
        """`adapter_folder`: where adapters are written for an engine that takes them alone; `kept_adapters`: how many versions of them
        completions in flight may still be written with. `ranks` publish together, each to an engine of its own."""
        self._ranks = ranks
        self._kept_adapters = kept_adapters
        self._adapter_folder = adapter_folder
        self.version = 0
        self.last_difference: float | None = None
        self._engine = engine
        self._policy = policy
        self._compute = compute
        self._probe = probe
        self._config = config
        self._tolerance = tolerance
        self._idle_during_update = idle_during_update
        self._num_published = 0
        self._verified: set[Replica] = set()

    async def publish(self, version: int) -> None:
        """See `WeightSync.publish`.

        Raises: WeightSyncFailed: the weights did not arrive in time. WeightSyncMismatch: what arrived is not what was sent.
        """
        seconds = self._config.timeout_seconds
        try:
            # An engine of several servers keeps the deadline with each of them and goes on without the late; this is for all together.
            async with asyncio.timeout(seconds * DEADLINE_SLACK):
                await self._send(version)
        except TimeoutError as error:
            raise WeightSyncFailed(
                f"the weights of version {version} did not reach the engine within weight_sync.timeout_seconds={seconds:g}: "
                "raise it if the model is large or completions are long, and look at the engine's log"
            ) from error
        self.version = version
        due = self._num_published % self._config.verify_every == 0
        replicas = [replica for replica in self._engine.replicas() if due or replica not in self._verified]
        self.last_difference = await self._verify(replicas)
        self._num_published += 1

    async def _send(self, version: int) -> None:
        """Send the adapters alone where there are any and the engine takes them, else the whole state dict."""
        engine = self._engine
        if not (isinstance(engine, TakesAdapters) and engine.takes_adapters):
            await engine.load_weights(self._policy.weights(), version)
            return
        folder = self._adapter_folder / f"version_{version:06d}"
        await self._compute.run(self._policy.save_adapter, folder)
        await engine.load_adapter(folder, version)
        for older in sorted(self._adapter_folder.glob("version_*"))[: -self._kept_adapters]:
            shutil.rmtree(older, ignore_errors=True)

    async def before_update(self) -> None:
        if self._idle_during_update:
            await self._engine.standby()

    async def _verify(self, replicas: Sequence[Replica]) -> float | None:
        """Return the largest mean difference; None where there was no replica to ask.

        All ranks score as often as the one with the most replicas, because where weights are divided they score together.
        """
        worst: float | None = None
        rounds = await self._compute.run(self._ranks.largest, len(replicas))
        for replica in [*replicas, *[None] * (rounds - len(replicas))]:
            written = [] if replica is None else await self._ask(replica)
            difference = await self._probe.compare(written, self._policy, self._compute)
            if replica is None or difference is None:
                continue
            if difference.mean > self._tolerance:
                raise WeightSyncMismatch(
                    f"after the sync of version {self.version} the log-probs of {replica} differ from the policy's by "
                    f"{difference.mean:.3g} nats on average and {difference.maximum:.3g} at most, on {difference.num_tokens} tokens of a "
                    f"fixed probe (tolerance {self._tolerance:g}): it samples from other weights or another distribution than the policy "
                    "learns. "
                    "`rlvr doctor --mismatch CONFIG` names the cause"
                )
            self._verified.add(replica)
            worst = max(worst or 0.0, difference.mean)
        return worst

    async def _ask(self, replica: Replica) -> list[Written]:
        """Let a replica continue the probe; nothing where it was lost meanwhile: it is checked when it comes back."""
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                return await self._probe.ask(replica)
        except TimeoutError as error:
            raise WeightSyncFailed(
                f"{replica} did not answer the probe within weight_sync.timeout_seconds={self._config.timeout_seconds:g}"
            ) from error
        except EngineFailed:
            if replica in self._engine.replicas():
                raise
            return []


@dataclass(frozen=True, slots=True)
class Difference:
    """Absolute differences of log-probs, nats."""

    mean: float
    maximum: float
    num_tokens: int

    @classmethod
    def between(cls, one: Sequence[float], other: Sequence[float]) -> Difference:
        differences = [abs(a - b) for a, b in zip(one, other, strict=True)]
        return cls(sum(differences) / len(differences), max(differences), len(differences))


@dataclass(frozen=True, slots=True)
class Probe:
    """Fixed prompts and how they are continued: with the run's own temperature, top-p and top-k, whose log-probs the policy must know."""

    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], sampling: Sampling, *, max_sequence_tokens: int) -> Probe:
        """Repeat each prompt until it is longer than a block of a prefix cache, as far as the engine's limit allows."""
        new_tokens = min(PROBE_NEW_TOKENS, sampling.max_new_tokens)
        length = max(1, min(PROBE_TOKENS, max_sequence_tokens - new_tokens))
        stretched = tuple(tuple((list(prompt) * (length // len(prompt) + 1))[:length]) for prompt in prompts)
        return cls(stretched, replace(sampling, max_new_tokens=new_tokens, num_samples=2, seed=0))

    async def ask(self, engine: Replica) -> list[Written]:
        """Let the engine continue the prompts."""
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(engine.generate(prompt, self.sampling)) for prompt in self.prompts]
        return [(prompt, completion) for prompt, task in zip(self.prompts, asked, strict=True) for completion in task.result()]

    async def compare(self, written: Sequence[Written], policy: Policy, compute: ComputeThread) -> Difference | None:
        """Compare the log-probs an engine told with the policy's of the same tokens; None where nothing was written."""
        own = await compute.run(_policy_logprobs, policy, written)
        told = [logprob for _, completion in written for logprob in completion.logprobs]
        return Difference.between(told, own) if told else None


def _policy_logprobs(policy: Policy, written: Sequence[Written]) -> list[float]:
    values = policy.logprobs([written_sample(prompt, completion) for prompt, completion in written])
    return [value for (prompt, _), row in zip(written, values, strict=True) for value in row[len(prompt) :]]


def default_tolerance(*dtypes: torch.dtype) -> float:
    """Return the tolerance where engine and policy compute in these types."""
    return FLOAT32_TOLERANCE if set(dtypes) == {torch.float32} else BFLOAT16_TOLERANCE
