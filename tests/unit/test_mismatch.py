"""The probe names why an engine's log-probs are not the policy's; each engine here has one of the faults that real ones have had."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlvr.config import RunConfig
from rlvr.engines.protocol import EngineSetting, NamedTensors
from rlvr.engines.transformers import TransformersEngine
from rlvr.errors import WeightSyncMismatch
from rlvr.mismatch import diagnose
from rlvr.run import train
from rlvr.types import Completion, Sampling


class Faithful:
    """An engine with weights of its own, as they should be: a copy of the module that takes over what it is sent."""

    shares_weights = False

    @classmethod
    async def open(cls, setting: EngineSetting) -> Faithful:
        model = copy.deepcopy(setting.model)
        return cls(TransformersEngine(model, setting.tokenizer, compute=setting.compute, compute_dtype=setting.dtype), model)

    def __init__(self, inner: TransformersEngine, model: torch.nn.Module) -> None:
        self.inner, self.model = inner, model

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        return await self.inner.generate(token_ids, sampling)

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return await self.inner.logprobs(token_ids)

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        await self.inner.load_weights(named_tensors, version)

    def replicas(self) -> Sequence[Faithful]:
        return (self,)

    async def standby(self) -> None:
        await self.inner.standby()

    async def close(self) -> None:
        await self.inner.close()


class Stale(Faithful):
    """Accepts weights and goes on with the old ones."""

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        await self.inner.load_weights((), version)


class StaleTiedHead(Faithful):
    """Takes over everything but the output projection, which was tied and is not any more."""

    @classmethod
    async def open(cls, setting: EngineSetting) -> Faithful:
        model = copy.deepcopy(setting.model)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        return cls(TransformersEngine(model, setting.tokenizer, compute=setting.compute, compute_dtype=setting.dtype), model)

    async def load_weights(self, named_tensors: NamedTensors, version: int) -> None:
        await self.inner.load_weights([(name, tensor) for name, tensor in named_tensors if name != "lm_head.weight"], version)


class Truncating(Faithful):
    """Samples with a top-p of its own."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        return await self.inner.generate(token_ids, replace(sampling, top_p=0.8))


class WrongText(Faithful):
    """Spells tokens in its own way."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        return [replace(completion, text=completion.text + "▁") for completion in await self.inner.generate(token_ids, sampling)]


def run_of(folder: Path, model: Path, fault: str, **changes: object) -> RunConfig:
    (folder / "problems.jsonl").write_text("".join(json.dumps({"question": f"say {n}", "answer": str(n)}) + "\n" for n in range(20)))
    settings = {
        "name": "mismatch",
        "runs_folder": str(folder / "runs"),
        "num_steps": 1,
        "num_threads": 1,
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": str(folder / "problems.jsonl"), "template": "plain"},
        "sampling": {"max_new_tokens": 24, "temperature": 0.8},
        "batch": {"prompts_per_step": 2, "group_size": 2},
        "engine": {"name": f"{__name__}:{fault}"},
        "tracking": {"sinks": []},
    }
    return RunConfig.model_validate(settings | changes)


def doctor(config: RunConfig) -> tuple[bool, list[str]]:
    told: list[str] = []
    return diagnose(config, told.append), told


def test_an_engine_that_follows_the_policy_agrees_before_and_after(tmp_path, tiny_model_folder):
    agrees, told = doctor(run_of(tmp_path, tiny_model_folder, "Faithful"))
    assert agrees and sum("engine and policy agree" in line for line in told) == 2


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("Stale", "samples from the weights before the last sync"),
        ("StaleTiedHead", "output projection is the old one although its embedding is new"),
    ],
)
def test_weights_that_did_not_arrive_are_told_apart(engine, sentence, tmp_path, tiny_model_folder):
    agrees, told = doctor(run_of(tmp_path, tiny_model_folder, engine))
    assert not agrees
    assert "agree" in told[1] and sentence in told[2]


def test_a_truncated_vocabulary_is_named(tmp_path, tiny_model_folder):
    sampling = {"max_new_tokens": 24, "temperature": 0.8, "top_p": 0.8, "allow_truncated_vocabulary": True}
    agrees, told = doctor(run_of(tmp_path, tiny_model_folder, "Faithful", sampling=sampling))
    assert not agrees and "truncated vocabulary" in told[1]


def test_a_servers_own_truncation_is_found_in_the_models_generation_config(tmp_path, tiny_model_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "model"
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    model.generation_config.top_p, model.generation_config.do_sample = 0.8, True
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(folder)
    agrees, told = doctor(run_of(tmp_path, folder, "Truncating"))
    assert not agrees and "truncated vocabulary" in told[1]


def test_another_arithmetic_is_named(tmp_path, tiny_model_folder):
    engine = {"name": f"{__name__}:Faithful", "dtype": "bfloat16"}
    config = run_of(tmp_path, tiny_model_folder, "", engine=engine, weight_sync={"tolerance": 1e-4})
    agrees, told = doctor(config)
    assert not agrees and "compute in different types" in told[1]


def test_text_of_another_tokenizer_is_named(tmp_path, tiny_model_folder):
    agrees, told = doctor(run_of(tmp_path, tiny_model_folder, "WrongText"))
    assert not agrees and "not what its tokens spell" in told[1]


def test_a_run_says_at_its_start_that_engine_and_policy_agree(tmp_path, tiny_model_folder, capsys):
    train(run_of(tmp_path, tiny_model_folder, "Faithful"))
    assert "engine and policy agree" in "".join(capsys.readouterr())


def test_a_run_over_an_engine_that_truncates_does_not_start_and_says_why(tmp_path, tiny_model_folder):
    sampling = {"max_new_tokens": 24, "temperature": 0.8, "top_p": 0.5, "allow_truncated_vocabulary": True}
    with pytest.raises(WeightSyncMismatch, match="differ from the policy's by .* The cause: .*truncated vocabulary"):
        train(run_of(tmp_path, tiny_model_folder, "Faithful", sampling=sampling))
