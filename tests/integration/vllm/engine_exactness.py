"""Run as a script: ten updates of a policy, each pushed to vLLM in this process, and what the two then say of the same tokens."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import torch

from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig, ModelConfig, OptimizerConfig, WeightSyncConfig
from rlvr.engines.protocol import EngineSetting
from rlvr.engines.vllm_local import VllmEngine
from rlvr.errors import EngineFailed, WeightSyncFailed
from rlvr.policy.loading import load_model
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.types import Completion, Sampling
from rlvr.weight_sync import Probe, PushedWeights, default_tolerance

TEMPERATURE = 0.7
NUM_UPDATES = 10
PROMPTS = ([10, 20, 30, 40], list(range(5, 45)))


async def main(model_folder: str, result: str) -> None:
    model = ModelConfig(path=model_folder, dtype="float32")
    with ComputeThread() as compute:
        loaded = load_model(model)
        policy = TorchPolicy(loaded, optimizer=OptimizerConfig(), temperature=TEMPERATURE)
        sync = WeightSyncConfig(verify_every=1, in_flight="continue")
        engine = await VllmEngine.open(setting_of(model, loaded, compute, sync))
        probe = Probe.of(PROMPTS, Sampling(16, temperature=TEMPERATURE), max_sequence_tokens=256)
        weights = PushedWeights(
            engine,
            policy,
            compute,
            probe,
            config=sync,
            tolerance=default_tolerance(torch.float32),
            idle_during_update=False,
            adapter_folder=Path("unused"),
        )
        out: dict[str, object] = {"differences": [], "logprobs": [], "versions": []}
        for version in range(NUM_UPDATES + 1):
            if version > 0:
                perturb(policy.model, version)
            await weights.publish(version)
            difference = await probe.compare(await probe.ask(engine), policy, compute)
            out["differences"].append(difference.maximum)
            tokens = list(range(5, 95)) * 2
            told = await engine.logprobs(tokens)
            out["logprobs"].append(max(abs(a - b) for a, b in zip(told, untempered(policy.model, tokens), strict=True)))
            [completion] = await engine.generate(PROMPTS[0], Sampling(4))
            out["versions"].append([completion.first_version, completion.last_version])
        out["seeds"] = await seeds(engine)
        out["stopped"] = await stopped(engine, loaded.tokenizer.eos_token_id)
        out["continued"] = await continued(engine, policy, weights)
        out["cancelled"] = await cancelled(engine)
        out["refused"] = await refused(engine)
        out["many"] = await many(engine)
        out["too_long"] = await too_long(engine)
        out["failed"] = await failed(engine)
        await engine.close()
    Path(result).write_text(json.dumps(out))


def setting_of(model: ModelConfig, loaded, compute: ComputeThread, sync: WeightSyncConfig) -> EngineSetting:
    return EngineSetting(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        model_config=model,
        config=EngineConfig(name="vllm"),
        sync=sync,
        compute=compute,
        compute_dtype=loaded.compute_dtype,
        max_sequence_tokens=256,
        run_folder=Path("unused"),
    )


def perturb(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)


def untempered(model: torch.nn.Module, tokens: list[int]) -> list[float]:
    with torch.no_grad():
        ids = torch.tensor([tokens])
        plain = torch.log_softmax(model.get_output_embeddings()(hidden(model, ids))[0, :-1].float(), -1)
    return [0.0, *plain.gather(1, ids[0, 1:, None])[:, 0].tolist()]


def hidden(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    implementation = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        return model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        model.config._attn_implementation = implementation


async def seeds(engine: VllmEngine) -> dict[str, bool]:
    one, again, other = [await engine.generate(PROMPTS[0], Sampling(12, num_samples=3, seed=seed)) for seed in (1, 1, 2)]
    tokens = [[completion.token_ids for completion in group] for group in (one, again, other)]
    return {"same": tokens[0] == tokens[1], "other": tokens[0] != tokens[2], "siblings": len(set(tokens[0])) == 3}


async def stopped(engine: VllmEngine, end: int) -> list[bool]:
    group = await engine.generate(PROMPTS[0], Sampling(200, temperature=2.0, num_samples=32, seed=0))
    return [(c.token_ids[-1] == end) == (c.finish_reason == "stop") and end not in c.token_ids[:-1] for c in group]


async def continued(engine: VllmEngine, policy: TorchPolicy, weights: PushedWeights) -> dict[str, object]:
    """New weights come while a completion is being written."""
    writing = asyncio.create_task(engine.generate(PROMPTS[0], Sampling(240, temperature=1.0, num_samples=32, seed=5)))
    while not engine._thread._running:  # Taken up: its first tokens are written before any change.
        await asyncio.sleep(0.001)
    perturb(policy.model, 99)
    await engine.load_weights(policy.weights(), NUM_UPDATES + 1)
    completions: list[Completion] = await writing
    return {"versions": [[c.first_version, c.last_version] for c in completions], "lengths": [c.num_tokens for c in completions]}


async def cancelled(engine: VllmEngine) -> bool:
    """A caller that leaves takes its request with it, and the engine goes on."""
    task = asyncio.create_task(engine.generate(PROMPTS[0], Sampling(250, num_samples=8)))
    await asyncio.sleep(0.05)
    task.cancel()
    [completion] = await engine.generate(PROMPTS[1], Sampling(3))
    return completion.num_tokens <= 3


async def refused(engine: VllmEngine) -> str:
    """Weights of no such name: an error, and the engine takes the next."""
    try:
        await engine.load_weights([("model.no_such_layer.weight", torch.zeros(3))], 50)
    except WeightSyncFailed as error:
        return str(error)
    return "no error"


async def many(engine: VllmEngine) -> int:
    """More prompt tokens at once, with seeds, than vLLM takes in one step."""
    prompts = [[(7 * index + 3 * place) % 90 + 5 for place in range(200)] for index in range(64)]
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(engine.generate(prompt, Sampling(8, num_samples=4, seed=1))) for prompt in prompts]
    return sum(len(task.result()) for task in asked)


async def failed(engine: VllmEngine) -> list[str]:
    """vLLM fails in a step: who waits hears of it, and so does who asks later."""

    def break_down() -> None:
        raise MemoryError("no room for the cache")

    engine._thread._engine.step = break_down
    told = []
    for _ in range(2):
        try:
            async with asyncio.timeout(10):
                await engine.generate(PROMPTS[0], Sampling(4))
        except EngineFailed as error:
            told.append(str(error))
    return told


async def too_long(engine: VllmEngine) -> str:
    try:
        await engine.generate(list(range(5, 95)) * 4, Sampling(3))
    except ValueError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
