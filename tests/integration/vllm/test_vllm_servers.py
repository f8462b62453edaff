"""Real vLLM servers: exact after every update, and no fault of one costs more than the requests it held.

Every wait in here has a deadline: a hang is a failure.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from rlvr.compute import ComputeThread
from rlvr.config import EngineConfig, LoraConfig, ModelConfig, OptimizerConfig, ServersConfig, WeightSyncConfig
from rlvr.engines.protocol import EngineSetting
from rlvr.engines.vllm_server import VllmServerEngine
from rlvr.errors import ConfigError, EngineFailed, WeightSyncFailed, WeightSyncMismatch
from rlvr.policy.loading import load_model
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.run import train
from rlvr.serve import ServerProcess
from rlvr.tracking.metrics import read_metrics
from rlvr.tracking.rollout_table import RolloutTable
from rlvr.types import Completion, Sampling
from rlvr.weight_sync import FLOAT32_TOLERANCE, Probe, PushedWeights
from tests.conftest import save_tiny_model
from tests.integration.runs.small_runs import small_run
from tests.integration.vllm.conftest import free_port, restart

pytestmark = pytest.mark.vllm

TEMPERATURE = 0.7
PROMPTS = ([10, 20, 30, 40], list(range(5, 45)))
# Eight steps of two groups.
ALL_GROUPS = list(range(16))
LONG = Sampling(250, temperature=1.0, num_samples=4)


@dataclass
class Trainer:
    """The trainer's side: a policy, an engine over servers, and the sync between them."""

    policy: TorchPolicy
    engine: VllmServerEngine
    weights: PushedWeights
    probe: Probe
    compute: ComputeThread
    told: list[str]

    def move(self, seed: int) -> None:
        """Change what is trained: all weights, or the adapters where there are any."""
        generator = torch.Generator().manual_seed(seed)
        trained = [p for p in self.policy.model.parameters() if p.requires_grad]
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)

    async def difference(self) -> float:
        """The largest difference of log-probs over all servers that serve."""
        found = [await self.probe.compare(await self.probe.ask(replica), self.policy, self.compute) for replica in self.engine.replicas()]
        return max(each.maximum for each in found)


@asynccontextmanager
async def trainer_of(
    model: Path, urls: Sequence[str], folder: Path, *, in_flight="finish", deadline=60.0, lora=None, **servers
) -> AsyncIterator[Trainer]:
    config = ModelConfig(path=str(model), dtype="float32", lora=lora)
    sync = WeightSyncConfig(in_flight=in_flight, timeout_seconds=30)
    settings = {"health_every_seconds": 0.3, "health_timeout_seconds": 2.0, "recovery_timeout_seconds": 20.0} | servers
    told: list[str] = []
    async with asyncio.timeout(deadline):
        with ComputeThread() as compute:
            loaded = load_model(config)
            setting = EngineSetting(
                model=loaded.model,
                tokenizer=loaded.tokenizer,
                model_config=config,
                config=EngineConfig(name="vllm_server", servers=ServersConfig(urls=list(urls), **settings)),
                sync=sync,
                compute=compute,
                compute_dtype=loaded.compute_dtype,
                max_sequence_tokens=500,
                run_folder=folder,
                tell=told.append,
            )
            policy = TorchPolicy(loaded, optimizer=OptimizerConfig(), temperature=TEMPERATURE)
            probe = Probe.of(PROMPTS, Sampling(16, temperature=TEMPERATURE), max_sequence_tokens=500)
            engine = await VllmServerEngine.open(setting)
            try:
                weights = PushedWeights(
                    engine,
                    policy,
                    compute,
                    probe,
                    config=sync,
                    tolerance=FLOAT32_TOLERANCE,
                    idle_during_update=False,
                    adapter_folder=folder / "adapters",
                )
                yield Trainer(policy, engine, weights, probe, compute, told)
            finally:
                await engine.close()


def urls_of(servers: Sequence[ServerProcess]) -> list[str]:
    return [server.plan.url for server in servers]


async def until(condition, seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def assert_groups(groups: Sequence[Sequence[Completion]], count: int) -> None:
    assert len(groups) == count
    assert all(len(group) == LONG.num_samples and all(c.finish_reason in ("stop", "length") for c in group) for group in groups)


async def ask(trainer: Trainer, count: int, first_seed: int = 0) -> list[list[Completion]]:
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(trainer.engine.generate(PROMPTS[0], Sampling(**{**_fields(LONG), "seed": first_seed + index})))
            for index in range(count)
        ]
    return [task.result() for task in asked]


@asynccontextmanager
async def asking_all_the_time(trainer: Trainer) -> AsyncIterator[list[list[Completion]]]:
    """Sixteen who ask again as soon as they are answered, at different lengths: at any time inside the block something is being written."""
    answered: list[list[Completion]] = []
    over = asyncio.Event()

    async def ask_again(number: int) -> None:
        sampling = Sampling(100 + 9 * number, temperature=1.0, num_samples=LONG.num_samples)
        while not over.is_set():
            answered.append(await trainer.engine.generate(PROMPTS[0], sampling))

    async with asyncio.TaskGroup() as tasks:
        for number in range(16):
            tasks.create_task(ask_again(number))
        try:
            yield answered
        finally:
            over.set()


def _fields(sampling: Sampling) -> dict:
    return {name: getattr(sampling, name) for name in sampling.__slots__}


@pytest.mark.parametrize("in_flight", ["finish", "continue"])
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_logprobs_are_the_policys_after_each_of_ten_updates(
    kind, in_flight, servers, untied_server, tiny_model_folder, untied_model_folder, tmp_path
):
    async def run() -> None:
        model, urls = (tiny_model_folder, urls_of(servers)) if kind == "tied" else (untied_model_folder, [untied_server.plan.url])
        async with trainer_of(model, urls, tmp_path, in_flight=in_flight) as trainer:
            for version in range(11):
                if version:
                    trainer.move(version)
                await trainer.weights.publish(version)
                assert len(trainer.engine.replicas()) == len(urls)
                assert await trainer.difference() < 1e-4
                [completion] = await trainer.engine.generate(PROMPTS[0], Sampling(4))
                assert (completion.first_version, completion.last_version) == (version, version)

    asyncio.run(run())


def test_adapters_alone_are_sent_to_a_server_that_takes_them_and_are_the_policys(adapter_server, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, [adapter_server.plan.url], tmp_path, lora=LoraConfig(rank=4)) as trainer:
            assert trainer.engine.takes_adapters
            for version in range(5):
                if version:
                    trainer.move(version)
                writing = asyncio.create_task(ask(trainer, 4)) if version else None
                await asyncio.sleep(0.1)
                await trainer.weights.publish(version)
                assert await trainer.difference() < 1e-4
                [completion] = await trainer.engine.generate(PROMPTS[0], Sampling(4))
                assert (completion.first_version, completion.last_version) == (version, version)
                if writing is not None:  # What was begun before goes on with its own adapters.
                    assert {c.last_version for group in await writing for c in group} == {version - 1}
            assert not list(tmp_path.glob("weights/version_*"))  # no weights were sent

    asyncio.run(run())


@pytest.mark.parametrize(("in_flight", "versions"), [("finish", (1, 1)), ("continue", (1, 2))])
def test_what_is_being_written_at_a_sync_finishes_or_continues(in_flight, versions, servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path, in_flight=in_flight) as trainer:
            await trainer.weights.publish(1)
            async with asking_all_the_time(trainer) as groups:
                await until(lambda: len(groups) >= 8)
                trainer.move(2)
                await trainer.weights.publish(2)
            assert_groups(groups, len(groups))
            found = {(completion.first_version, completion.last_version) for group in groups for completion in group}
            # Those that were done before the update, and those that came to a server after it, are the same either way.
            assert versions in found and found <= {versions, (1, 1), (2, 2)}
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_the_least_loaded_server_is_asked(servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path) as trainer:
            asking = asyncio.create_task(ask(trainer, 10))
            for _ in range(5):  # Until each has chosen; none is answered so soon.
                await asyncio.sleep(0)
            loads = [server.load for server in trainer.engine._servers]
            await asking
            assert loads == [20, 20]
            assert [server.load for server in trainer.engine._servers] == [0, 0]

    asyncio.run(run())


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_run_goes_on_when_a_server_is_killed_and_trains_on_every_group_once(max_staleness, servers, tiny_model_folder, tmp_path):
    urls = [server.plan.url for server in servers]
    config = small_run(
        tmp_path,
        tiny_model_folder,
        engine={"name": "vllm_server", "servers": {"urls": urls, "health_every_seconds": 0.5, "health_timeout_seconds": 3}},
        model={"dtype": "float32"},
        data={"max_prompt_tokens": 200},
        sampling={"max_new_tokens": 100},
        weight_sync={"verify_every": 1, "in_flight": "continue" if max_staleness else "finish"},
        batch={"max_staleness": max_staleness, "tokens_per_microbatch": 512},
    )
    metrics = tmp_path / "runs" / "small" / "metrics.jsonl"
    killer = threading.Thread(target=kill_after_step, args=(servers[1], metrics, 3))
    killer.start()
    run = train(config).folder
    killer.join()
    assert not servers[1].is_running()
    steps = [dict(row.values) for row in read_metrics(metrics)][1:]
    assert len(steps) == 8 and all(row["engine/sync_difference"] < 1e-4 for row in steps if "engine/sync_difference" in row)
    table = RolloutTable(run / "rollouts")
    trained = [index for step in range(1, 9) for index in sorted({row.group_index for row in table.read(step)})]
    assert trained == ALL_GROUPS
    assert all(len(table.read(step)) == 8 for step in range(1, 9))
    assert max(row["staleness/max"] for row in steps) <= max_staleness


def kill_after_step(server, metrics: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_text().splitlines()) > step:
            break
        time.sleep(0.02)
    server.kill(signal.SIGKILL)
    time.sleep(0.2)


def test_a_server_killed_in_mid_generation_costs_nothing_and_comes_back_with_the_present_weights(servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path, deadline=150, recovery_timeout_seconds=100) as trainer:
            trainer.move(1)
            await trainer.weights.publish(1)
            writing = asyncio.create_task(ask(trainer, 24))
            await asyncio.sleep(0.2)
            servers[1].kill(signal.SIGKILL)
            groups = await writing
            assert_groups(groups, 24)
            assert {completion.first_version for group in groups for completion in group} == {1}
            assert len(trainer.engine.replicas()) == 1
            trainer.move(2)
            await trainer.weights.publish(2)  # to the one that is left
            await asyncio.to_thread(restart, servers[1])
            await until(lambda: len(trainer.engine.replicas()) == 2)
            assert await trainer.difference() < 1e-4
            groups = await ask(trainer, 8)
            assert {completion.first_version for group in groups for completion in group} == {2}
            assert [servers[1].plan.url in line for line in trainer.told] == [True, True]
            assert "is left out: it" in trainer.told[0] and "serves again, with the weights of version 2" in trainer.told[1]
            trainer.move(3)
            await trainer.weights.publish(3)
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_a_server_that_stops_answering_is_left_out_within_its_deadline_and_taken_back(servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path) as trainer:
            await trainer.weights.publish(1)
            writing = asyncio.create_task(ask(trainer, 16))
            await asyncio.sleep(0.2)
            servers[0].kill(signal.SIGSTOP)
            try:
                async with asyncio.timeout(20):
                    assert_groups(await writing, 16)
                trainer.move(2)
                await trainer.weights.publish(2)
            finally:
                servers[0].kill(signal.SIGCONT)
            await until(lambda: len(trainer.engine.replicas()) == 2)
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_an_engine_that_hangs_behind_a_frontend_that_answers_is_left_out_and_taken_back(servers, tiny_model_folder, tmp_path):
    [core] = [child for child in psutil.Process(servers[0].pid).children() if "EngineCore" in " ".join(child.cmdline())]

    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path, stall_timeout_seconds=2) as trainer:
            await trainer.weights.publish(1)
            writing = asyncio.create_task(ask(trainer, 16))
            await asyncio.sleep(0.2)
            core.suspend()
            try:
                async with asyncio.timeout(20):
                    assert_groups(await writing, 16)
                assert await trainer.engine._servers[0].is_healthy(2.0)
                assert "has written nothing for 2 s" in trainer.engine._servers[0].fault
            finally:
                core.resume()
            await until(lambda: len(trainer.engine.replicas()) == 2)
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_a_server_that_hangs_during_a_sync_costs_its_deadline_and_the_others_go_on(servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path, health_every_seconds=1000) as trainer:
            trainer.engine._sync_timeout_seconds = 3.0
            await trainer.weights.publish(1)
            trainer.told.clear()
            servers[0].kill(signal.SIGSTOP)
            try:
                trainer.move(2)
                await trainer.weights.publish(2)
                assert "did not take the weights of version 2 within 3 s" in trainer.told[0]
                assert [str(replica) for replica in trainer.engine.replicas()] == [servers[1].plan.url]
                assert await trainer.difference() < 1e-4
            finally:
                servers[0].kill(signal.SIGCONT)

    asyncio.run(run())


def test_a_sync_does_not_wait_for_a_server_that_its_health_check_finds_hanging(servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path) as trainer:
            await trainer.weights.publish(1)
            servers[0].kill(signal.SIGSTOP)
            try:
                trainer.move(2)
                async with asyncio.timeout(15):  # Half the deadline of a sync.
                    await trainer.weights.publish(2)
                assert "did not answer a health check" in trainer.told[0]
            finally:
                servers[0].kill(signal.SIGCONT)
            await until(lambda: len(trainer.engine.replicas()) == 2)
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_a_place_that_accepts_and_never_answers_ends_the_start_with_a_clear_message(tiny_model_folder, tmp_path):
    async def run() -> None:
        async def accept(reader, writer) -> None:
            await asyncio.sleep(100)

        port = free_port()
        async with await asyncio.start_server(accept, "127.0.0.1", port):
            silent = {"health_timeout_seconds": 0.5, "recovery_timeout_seconds": 2.0}
            with pytest.raises(EngineFailed, match=rf"no vLLM server has served .*=2: http://127.0.0.1:{port} does not answer.*rlvr serve"):
                async with trainer_of(tiny_model_folder, [f"http://127.0.0.1:{port}"], tmp_path, deadline=20, **silent):
                    pass

    asyncio.run(run())


def test_something_that_is_no_vllm_server_is_named_before_anything_is_trained(tiny_model_folder, tmp_path):
    async def run() -> None:
        async def answer(reader, writer) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
            writer.close()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            with pytest.raises(ConfigError, match=rf"http://127.0.0.1:{port} answered .*something else than JSON.*rlvr serve"):
                async with trainer_of(tiny_model_folder, [f"http://127.0.0.1:{port}"], tmp_path, deadline=20):
                    pass

    asyncio.run(run())


@pytest.mark.parametrize("change", [{"intermediate_size": 256}, {"num_hidden_layers": 1}])
def test_a_server_of_another_model_is_named_before_anything_is_trained(change, servers, tmp_path):
    async def run() -> None:
        other = tmp_path / "other"
        other.mkdir()
        save_tiny_model(other, **change)
        [(name, value)] = change.items()
        with pytest.raises(ConfigError, match=rf"{servers[0].plan.url} serves '.*' and does not take weights .*{name} {value}"):
            async with trainer_of(other, urls_of(servers[:1]), tmp_path):
                pass

    asyncio.run(run())


def test_weights_that_arrive_wrong_are_a_mismatch_that_names_the_server(servers, tiny_model_folder, tmp_path, monkeypatch):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers[:1]), tmp_path) as trainer:
            await trainer.weights.publish(1)
            trainer.move(2)
            stale = {name: tensor.clone() for name, tensor in trainer.policy.weights()}
            trainer.move(3)
            monkeypatch.setattr(trainer.policy, "weights", lambda: iter(stale.items()))
            trainer.weights._verified.clear()
            with pytest.raises(WeightSyncMismatch, match=rf"log-probs of {servers[0].plan.url} differ from the policy's by"):
                await trainer.weights.publish(2)

    asyncio.run(run())


def test_a_transfer_cut_half_way_is_an_error_and_the_next_one_mends_it(servers, tiny_model_folder, tmp_path, monkeypatch):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers[:1]), tmp_path, recovery_timeout_seconds=5) as trainer:
            await trainer.weights.publish(1)
            write = trainer.engine._weights.write

            def write_half(tensors, version):
                path = write(tensors, version)
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                return path

            monkeypatch.setattr(trainer.engine._weights, "write", write_half)
            with pytest.raises(WeightSyncFailed, match="no server took the weights of version 2"):
                await trainer.weights.publish(2)
            monkeypatch.undo()
            trainer.move(3)
            await trainer.engine.load_weights(trainer.policy.weights(), 3)
            await until(lambda: trainer.engine.replicas())
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_an_update_that_a_killed_trainer_left_open_is_ended_by_the_next(servers, tiny_model_folder, tmp_path):
    url = servers[0].plan.url
    httpx.post(f"{url}/pause", timeout=10).raise_for_status()
    httpx.post(f"{url}/start_weight_update", timeout=10).raise_for_status()

    async def run() -> None:
        async with trainer_of(tiny_model_folder, [url], tmp_path) as trainer:
            trainer.move(4)
            await trainer.weights.publish(1)
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_a_server_killed_during_a_sync_is_left_out_and_the_sync_goes_on(servers, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, urls_of(servers), tmp_path) as trainer:
            await trainer.weights.publish(1)
            trainer.move(2)
            publishing = asyncio.create_task(trainer.weights.publish(2))
            await until(lambda: any(tmp_path.glob("weights/version_000002.safetensors")))
            servers[1].kill(signal.SIGKILL)
            await publishing
            await trainer.engine.generate(PROMPTS[0], Sampling(4))
            await until(lambda: len(trainer.engine.replicas()) == 1)
            assert await trainer.difference() < 1e-4

    asyncio.run(run())


def test_without_any_server_left_the_run_ends_within_its_deadline(first_server, tiny_model_folder, tmp_path):
    async def run() -> None:
        async with trainer_of(tiny_model_folder, [first_server.plan.url], tmp_path, recovery_timeout_seconds=3) as trainer:
            await trainer.weights.publish(1)
            writing = asyncio.create_task(ask(trainer, 8))
            await asyncio.sleep(0.2)
            first_server.kill(signal.SIGKILL)
            with pytest.raises(ExceptionGroup) as raised:
                async with asyncio.timeout(15):
                    await writing
            assert [line.startswith("no server serves; waiting for one, up to 3 s") for line in trainer.told].count(True) == 1
            assert all(isinstance(error, EngineFailed) and first_server.plan.url in str(error) for error in raised.value.exceptions)

    asyncio.run(run())
