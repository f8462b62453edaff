"""The dry run: every fault of a run is found before it starts, gold answers earn full score, and memory adds up."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from rlvr.config import RunConfig, SftConfig, VerifierConfig
from rlvr.config_files import resolve
from rlvr.dry_run import Report, check_run, inspect_run
from rlvr.gold_check import check_gold
from rlvr.judge import Judge
from rlvr.memory_forecast import Division, ModelShape, Workload, activation_bytes, cache_bytes, forecast, format_bytes
from verifiers.errors import GoldError
from verifiers.exact_match import ExactMatch
from verifiers.registry import build
from verifiers.types import Problem, Verdict

SHAPE = ModelShape(
    num_parameters=1000,
    num_matrix_parameters=800,
    num_layers=2,
    hidden=8,
    intermediate=16,
    num_heads=4,
    num_key_heads=2,
    head_dim=2,
    vocabulary=50,
)
WORK = Workload(
    weight_bytes=4,
    compute_bytes=4,
    num_trainable=1000,
    tokens_per_microbatch=10,
    max_sequence_tokens=6,
    chunk_elements=200,
    keeps_reference=False,
    gradient_checkpointing=False,
    max_plain_area=0,
    decode_rows=3,
)


@pytest.fixture
def base(tiny_model_folder: Path, tmp_path: Path) -> dict:
    rows = [{"question": f"{n}+1=", "answer": str(n + 1), "response": f"<answer>{n + 1}</answer>"} for n in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "model": {"path": str(tiny_model_folder)},
        "data": {"path": str(tmp_path / "train.jsonl"), "plain_template": "{question}", "template": "plain", "max_prompt_tokens": 16},
        "runs_folder": str(tmp_path / "runs"),
    }


def inspect(base: dict, *overrides: str, **options: int) -> Report:
    return inspect_run(resolve(RunConfig, base, ["held_out.num_problems=10", "sampling.max_new_tokens=16", *overrides]).config, **options)


def wrong(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.findings if finding.status == "wrong"}


def test_a_sound_run_passes_and_starts_nothing(base: dict, tmp_path: Path) -> None:
    report = inspect(base)
    assert {finding.name: finding.status for finding in report.findings} == dict.fromkeys(
        ["model", "data", "held out", "prompts", "held-out prompts", "verifier", "engine", "memory", "folder"], "ok"
    )
    assert report.passed and report.prompts and report.prompts[0].endswith("+1=")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl"]


def test_every_fault_is_shown_at_once(base: dict) -> None:
    faults = wrong(inspect(base, "model.path=/no/such", "data.fields.answer=anwser", "verifier.name=exact_mach", "engine.name=vlm"))
    assert set(faults) == {"model", "data", "verifier", "engine"}
    assert "'/no/such' does not exist" in faults["model"]
    assert "row 1: no field 'anwser', did you mean 'answer'?" in faults["data"]
    assert "did you mean 'exact_match'" in faults["verifier"]


def test_the_report_says_whether_the_run_could_start(base: dict) -> None:
    for overrides, verdict in (([], "the run could start"), (["engine.name=none"], "the run could not start")):
        console = Console(file=io.StringIO(), width=60)
        config = resolve(RunConfig, base, overrides).config
        assert check_run(config, console=console) is (not overrides)
        text = console.file.getvalue()
        assert verdict in text and "predicted memory" in text
        assert any(line.startswith("ok      model: Qwen2ForCausalLM") for line in text.splitlines())


def test_a_prompt_that_is_too_long_is_counted(base: dict) -> None:
    # 0+1= to 9+1= have 4 tokens, 10+1= to 39+1= five: one token a character.
    findings = {finding.name: finding for finding in inspect(base, "data.max_prompt_tokens=4", "held_out.num_problems=null").findings}
    assert findings["prompts"].status == "warning"
    assert findings["prompts"].detail.startswith("10 prompts of 4 to 4 tokens, median 4; 30 longer than")


def test_weights_that_are_missing_or_cut_off_are_found_without_loading_them(base: dict, tiny_model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny_model_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors is damaged" in wrong(inspect(base, f"model.path={copy}"))["model"]
    weights.unlink()
    assert "lacks weights" in wrong(inspect(base, f"model.path={copy}"))["model"]


def test_a_folder_that_cannot_be_used_is_wrong(base: dict, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert "exists already" in wrong(inspect(base, "name=mine"))["folder"]
    assert wrong(inspect(base, f"runs_folder={tmp_path}/train.jsonl/runs"))["folder"].startswith("runs_folder=")


def test_benchmarks_that_a_run_is_evaluated_on_are_looked_at(base: dict, tmp_path: Path) -> None:
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "#### 2"}) + "\n")
    evaluations = [{"suite": "math", "data_folder": str(tmp_path)}, {"suite": "gsm8", "data_folder": str(tmp_path)}]
    found = {
        finding.detail: finding.status for finding in inspect_run(RunConfig.model_validate(base | {"evaluations": evaluations})).findings
    }
    assert found[f"gsm8k: 1 problems from {tmp_path / 'gsm8k.jsonl'}, judged by 'math'"] == "ok"
    assert any("holds no minerva" in detail and status == "warning" for detail, status in found.items())
    assert any("no suite or benchmark 'gsm8'" in detail and status == "wrong" for detail, status in found.items())


def test_files_that_the_recipe_makes_are_no_fault(base: dict) -> None:
    report = inspect(base, "model.path=/made/later", "data.path=made/later.jsonl", makes_inputs=True)
    assert report.passed
    assert {finding.name for finding in report.findings if finding.status == "warning"} >= {"model", "data", "verifier"}


def test_a_supervised_run_is_checked_too(base: dict) -> None:
    report = inspect_run(resolve(SftConfig, base).config)
    details = {finding.name: finding.detail for finding in report.findings}
    assert report.passed
    # 39+1=<answer>40</answer> and the end token: 5 + 19 + 1.
    assert "40 demonstrations" in details["demonstrations"] and "at most 25 tokens" in details["demonstrations"]
    assert report.memory is not None and report.memory.total("decoding") == 0


def problems(*answers: object) -> list[Problem]:
    return [Problem(f"p{index}", ({"role": "user", "content": "?"},), {"answer": answer}) for index, answer in enumerate(answers)]


def judge_of(verifier: object) -> Judge:
    return Judge.of(verifier, VerifierConfig(name="tried", timeout_seconds=5))


@pytest.mark.parametrize("extraction", ["strict", "lenient", "tag", "boxed", "hash", "whole"])
def test_gold_answers_are_accepted_in_the_form_the_verifier_reads(extraction: str) -> None:
    check = check_gold(problems("3", "4", 5, "3"), judge_of(ExactMatch(extraction=extraction)))
    assert check is not None and (check.num_tried, check.rejected, check.accepted, check.failures) == (4, (), (), ())


def test_a_weighted_verifier_is_tried_in_the_form_its_parts_ask_for() -> None:
    parts = [{"verifier": "exact_match", "weight": 1.0}, {"verifier": "format", "weight": 0.2}]
    check = check_gold(problems("3", "4"), judge_of(build("weighted", {"parts": parts})))
    assert check is not None and not check.rejected and not check.accepted


def test_a_verifier_that_rejects_gold_answers_is_wrong(base: dict) -> None:
    # `numeric` reads numbers; the gold answers are names.
    path = Path(base["data"]["path"])
    path.write_text("".join(json.dumps({"question": f"q{n}", "answer": f"name{n}"}) + "\n" for n in range(40)))
    assert "'numeric' fails on" in wrong(inspect(base, "verifier.name=numeric"))["verifier"]


async def agreeable(problem: Problem, responses: list) -> list[Verdict]:
    return [Verdict(1.0, "correct") for _ in responses]


async def broken(problem: Problem, responses: list) -> list[Verdict]:
    raise GoldError(f"cannot read {problem.id}")


async def endless(problem: Problem, responses: list) -> list[Verdict]:
    await asyncio.sleep(3600)
    return []


def test_a_verifier_that_accepts_anything_is_caught() -> None:
    check = check_gold(problems("3", "4"), judge_of(agreeable))
    assert check is not None and len(check.accepted) == 2 and "'4' is accepted though the gold answer is '3'" in check.accepted[0]


def test_a_verifier_that_raises_or_hangs_is_reported() -> None:
    check = check_gold(problems("3"), judge_of(broken))
    assert check is not None and check.failures == ("cannot read p0",)
    check = check_gold(problems("3"), Judge(endless, "endless", timeout_seconds=0.05, max_attempts=1))
    assert check is not None and "passed its deadline" in check.failures[0]


def test_rows_without_an_answer_to_write_out_are_not_tried() -> None:
    assert check_gold([Problem("p", (), {"tests": {}})], judge_of(agreeable)) is None


def test_memory_of_weights_gradients_and_moments_is_exact() -> None:
    sizes = {part.name: part.num_bytes for part in forecast(SHAPE, WORK).parts}
    # 1000 float32 parameters: 4000 bytes; two moments: 8000. Chunk: 3 x 200 x 4, the head's gradient 50 x 8 x 4 bytes.
    assert (sizes["weights"], sizes["optimizer"], sizes["gradients"]) == (4000, 8000, 4000)
    assert sizes["log-prob chunk"] == 2400 + 1600
    assert "frozen reference" not in sizes and "weights in the compute type" not in sizes


def test_the_key_value_cache_counts_rows_at_their_longest() -> None:
    # keys and values (2) x 2 layers x 2 key heads x 2 numbers x 4 bytes x 3 rows x 6 tokens
    assert cache_bytes(SHAPE, WORK) == 2 * 2 * 2 * 2 * 4 * 3 * 6


def test_the_peak_is_what_always_lives_and_the_larger_phase() -> None:
    memory = forecast(SHAPE, WORK)
    assert memory.peak == memory.total("always") + max(memory.total("update"), memory.total("decoding"))


def test_adapters_references_and_half_precision_change_their_parts_only() -> None:
    def sizes(**changes: object) -> dict[str, int]:
        return {part.name: part.num_bytes for part in forecast(SHAPE, dataclasses.replace(WORK, **changes)).parts}

    assert sizes(num_trainable=100)["optimizer"] == 800
    assert sizes(keeps_reference=True)["frozen reference"] == 4000
    assert sizes(compute_bytes=2)["weights in the compute type"] == 1600
    # Weights, frozen start and two moments once more: 4 x 4000; with adapters the base is the start: 4000 + 2 x 400.
    assert sizes(learns_rewards=True)["implicit reward model"] == 16_000
    assert sizes(learns_rewards=True, num_trainable=100)["implicit reward model"] == 4800


def test_a_run_that_learns_rewards_is_forecast_with_the_second_model(base: dict) -> None:
    plain, prime = inspect(base).memory, inspect(base, "algorithm.name=prime").memory
    assert plain is not None and prime is not None
    assert [part.name for part in prime.parts if part not in plain.parts] == ["implicit reward model"]


def test_attention_weights_are_counted_where_they_are_kept() -> None:
    with_plain = activation_bytes(SHAPE, dataclasses.replace(WORK, max_plain_area=16))
    # 2 layers x 10 tokens x 4 heads x 4 keys x 4 bytes
    assert with_plain - activation_bytes(SHAPE, WORK) == 2 * 10 * 4 * 4 * 4


def test_gradient_checkpointing_keeps_one_whole_layer_and_the_inputs_of_all() -> None:
    def kept(num_layers: int, on: bool) -> int:
        shape = dataclasses.replace(SHAPE, num_layers=num_layers)
        return activation_bytes(shape, dataclasses.replace(WORK, gradient_checkpointing=on))

    layer = kept(2, False) - kept(1, False)
    # The 40 layers' float32 inputs, 10 tokens x 8 numbers each, and the gradients of two of the MLP's values, 10 tokens x 16 numbers.
    assert kept(40, False) - kept(40, True) == 39 * layer - 40 * 10 * 8 * 4 - 2 * 10 * 16 * 4


@pytest.mark.parametrize(
    ("stage", "always", "gradients"),
    # 1000 parameters on 4 ranks, 4 bytes: whole 4000, a share 1000. Stage 1 divides two moments and the float32 weights, stage 3 all.
    [(0, 4000 + 8000, 4000), (1, 4000 + 3 * 1000, 4000), (2, 4000 + 3 * 1000, 1000), (3, 5 * 1000 + 4000, 0)],
)
def test_each_zero_stage_divides_one_thing_more(stage: int, always: int, gradients: int) -> None:
    memory = forecast(SHAPE, dataclasses.replace(WORK, decode_rows=0, division=Division(stage, 4)))
    assert memory.total("always") == always
    assert sum(part.num_bytes for part in memory.parts if part.name == "gradients" and part.phase == "update") == gradients


def test_processes_that_share_sequences_divide_the_activations() -> None:
    alone, shared = (activation_bytes(SHAPE, dataclasses.replace(WORK, division=Division(2, 2, sequence_parallel_size=s))) for s in (1, 2))
    assert alone == 2 * shared


def test_a_dry_run_for_several_processes_checks_that_they_can_share_the_run(base: dict) -> None:
    divided = inspect(base, "deepspeed.zero_stage=3", num_processes=4)
    assert divided.passed
    assert any(part.name == "gathered weights" for part in divided.memory.parts)
    uneven = inspect(base, "deepspeed.zero_stage=3", "batch.prompts_per_step=6", num_processes=4)
    assert "set it to 4 or 8" in wrong(uneven)["processes"]
    alone = inspect(base, num_processes=2)
    assert "add deepspeed.zero_stage=1" in wrong(alone)["processes"]


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 * 2**20, "200 MiB"), (3 * 2**40, "3 TiB")]
)
def test_sizes_read_in_binary_units(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


def test_vllm_in_the_process_has_weights_and_a_cache_of_its_own_and_servers_take_nothing_here() -> None:
    def names(**changes: object) -> dict[str, int]:
        return {part.name: part.num_bytes for part in forecast(SHAPE, dataclasses.replace(WORK, **changes)).parts}

    vllm = names(decode_rows=0, holds_vllm=True, vllm_bytes=2**30)
    # 1000 parameters x 4 bytes
    assert (vllm["vLLM's weights"], vllm["vLLM's key-value cache"]) == (4000, 2**30)
    assert "key-value cache" not in vllm and "key-value cache" not in names(decode_rows=0)


def test_servers_that_do_not_answer_now_are_a_warning_that_names_them(base: dict) -> None:
    report = inspect(base, "engine.name=vllm_server", "engine.servers.urls=[http://127.0.0.1:9]")
    [found] = [finding for finding in report.findings if finding.name == "engine"]
    assert report.passed and found.status == "warning"
    assert "no answer from http://127.0.0.1:9 now; start them with `rlvr serve`" in found.detail


def test_the_rollouts_that_values_take_are_told_and_in_the_memory(base: dict) -> None:
    small = base | {"batch": {"prompts_per_step": 2, "group_size": 2, "tokens_per_microbatch": 64}, "sampling": {"max_new_tokens": 8}}
    vine = {"name": "vineppo", "vine": {"separator": ".", "num_rollouts": 5, "max_steps": 4}}
    plain, with_values = inspect(small), inspect(small | {"algorithm": vine})
    told = next(finding.detail for finding in with_values.findings if finding.name == "values")
    # 5 rollouts from each of the 3 states between 4 steps.
    assert "what '.' ends" in told and "at most 15 for a completion" in told
    assert not [finding for finding in plain.findings if finding.name == "values"]
    caches = [next(part.num_bytes for part in report.memory.parts if "cache" in part.name) for report in (plain, with_values)]
    assert caches[1] == 15 * caches[0]


def test_an_environment_is_built_and_its_wrong_options_are_named(base: dict) -> None:
    options = {"sandbox": "local", "sandbox_options": {"allow_unsafe": True}}
    sound = base | {"environment": {"name": "python", "options": options}}
    assert "at most 4 replies" in next(f.detail for f in inspect(sound).findings if f.name == "environment")
    misspelt = base | {"environment": {"name": "python", "options": {"sandbocks": "local"}}}
    assert "sandbocks" in wrong(inspect(misspelt))["environment"]
