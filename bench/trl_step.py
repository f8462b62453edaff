"""Time per training step, side by side with TRL's GRPOTrainer in one run: same model, prompts, group size and lengths.

    OMP_NUM_THREADS=1 python -m bench.trl_step [--cases T A B A-ragged] [--rounds 3] [--steps 4]

Whole steps are compared: sampling, rewards, log-probs, backward, optimizer and the trainer's own bookkeeping. Rounds of a few steps
alternate between the sides, so that a busy machine slows all of them. CPU seconds of one thread are the measure; wall time stands beside.

Models are untrained. How long completions get is built into the weights, which both sides load: dimension 0 of every embedding is a
constant, so the final hidden states agree in it, and moving the end token's embedding along it sets its probability at every position.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

from bench.provenance import processor
from recipes.arithmetic import build_tokenizer, distinct_sums
from rlvr.config import RunConfig

Side = Literal["rlvr", "trl fp32", "trl bf16"]
SIDES: tuple[Side, ...] = ("rlvr", "trl fp32", "trl bf16")
PARTS = ("generation", "log-probs", "backward", "optimizer")
NUM_WARM_UP = 2  # steps at the start of each round that are not counted


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison. `stop_probability` ends a completion at each token; 0 makes all completions `max_new_tokens` long."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    prompts: int
    group_size: int
    max_new_tokens: int
    stop_probability: float = 0.0


CASES = {
    "T": Case("T", 128, 384, 4, 4, prompts=32, group_size=8, max_new_tokens=23),
    "A": Case("A", 256, 704, 4, 4, prompts=8, group_size=8, max_new_tokens=96),
    "B": Case("B", 512, 1408, 6, 8, prompts=8, group_size=8, max_new_tokens=96),
    # Geometric lengths cut at 106: mean (1 - 0.9811 ** 106) / 0.0189 = 45.9.
    "A-ragged": Case("A-ragged", 256, 704, 4, 4, prompts=8, group_size=8, max_new_tokens=106, stop_probability=0.0189),
}


@dataclass(slots=True)
class Step:
    """One measured step, in seconds; `parts` are CPU seconds."""

    cpu: float = 0.0
    wall: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


@dataclass(slots=True)
class Stopwatch:
    """Collects the steps of one round, and the lengths of what was sampled in them."""

    steps: list[Step] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    current: Step = field(default_factory=Step)
    _began: tuple[float, float] = field(default_factory=lambda: (time.process_time(), time.perf_counter()))

    def end_step(self) -> None:
        now = (time.process_time(), time.perf_counter())
        self.current.cpu, self.current.wall = now[0] - self._began[0], now[1] - self._began[1]
        self.steps.append(self.current)
        self.current, self._began = Step(), now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.current.parts[name] += time.process_time() - began

    def timed(self, name: str, function):
        def call(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return call


# The models and the reward


def build(case: Case, folder: Path) -> int:
    """Write model and tokenizer; return the number of parameters."""
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=case.hidden_size,
        intermediate_size=case.intermediate_size,
        num_hidden_layers=case.num_layers,
        num_attention_heads=case.num_heads,
        num_key_value_heads=case.num_heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    set_stop_probability(model, tokenizer.eos_token_id, case.stop_probability)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def set_stop_probability(model: Qwen2ForCausalLM, eos: int, probability: float) -> None:
    """Move the end token's embedding until its mean probability in sampled text is the one asked for."""
    embeddings = model.get_input_embeddings().weight
    embeddings[:, 0] = 1.0  # large beside the rest, so that the final hidden state has the same sign there everywhere
    embeddings[eos, 0] = -60.0
    prompts = torch.randint(6, 100, (64, 8), generator=torch.Generator().manual_seed(0))
    tokens = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=104, do_sample=True, top_k=0)
    # No token here is the end token, so its embedding moves its own logit only, by as much as the hidden state has in that dimension.
    hidden = model.model(input_ids=tokens).last_hidden_state[:, 7:]
    logits = model.lm_head(hidden)
    fixed = logits[..., eos] - hidden[..., 0] * embeddings[eos, 0]
    low, high = -60.0, 60.0
    for _ in range(40):
        middle = (low + high) / 2
        logits[..., eos] = fixed + hidden[..., 0] * middle
        low, high = (low, middle) if float(logits.softmax(-1)[..., eos].mean()) > max(probability, 1e-9) else (middle, high)
    embeddings[eos, 0] = low


def share_of_digits(text: str) -> float:
    """A reward that differs between nearly all completions, so that no completion can be left out for having no advantage."""
    return sum(character.isdigit() for character in text) / max(len(text), 1)


async def judge_digits(problem, responses):
    """The same reward as a verifier."""
    from verifiers.types import Verdict

    return [Verdict(share_of_digits(response.text), "partial") for response in responses]


def questions(case: Case) -> list[str]:
    return [problem.question for problem in distinct_sums("train", 512, seed=0) if len(problem.question) == 8][: case.prompts]


# The sides


def run_rlvr(case: Case, folder: Path, num_steps: int, watch: Stopwatch) -> None:
    """Take steps with rlvr, from its configuration to its metrics file."""
    import rlvr.run
    from rlvr.policy.scoring import Scorer
    from rlvr.rollouts.producer import Producer
    from rlvr.trainer import Trainer

    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": "0"}) + "\n" for q in questions(case)))
    config = RunConfig.model_validate(
        {
            "runs_folder": tempfile.mkdtemp(dir=folder),
            "num_steps": num_steps,
            "num_threads": 1,
            "model": {"path": str(folder)},
            "algorithm": {"name": "grpo", "kl": {"coefficient": 0.0}},
            "data": {"path": str(data), "plain_template": "{question}"},
            "verifier": {"name": "bench.trl_step:judge_digits"},
            "sampling": {"max_new_tokens": case.max_new_tokens},
            "batch": {"prompts_per_step": case.prompts, "group_size": case.group_size, "tokens_per_microbatch": 8192},
            "optimizer": {"learning_rate": 1e-6},
            "tracking": {"sinks": [], "rollouts_every": 0},
            "guards": {"max_truncated_share": 1.0, "patience": 1000},
        }
    )
    step, take = Trainer.step, Producer.take

    async def timed_take(self, num_groups):
        with watch.part("generation"):
            return await take(self, num_groups)

    async def timed_step(self):
        result = await step(self)
        watch.lengths += [r.completion.num_tokens for credited in result.groups for r in credited.group.rollouts]
        watch.end_step()
        return result

    with patched(Trainer, "step", timed_step), patched(Producer, "take", timed_take):
        with patched(Scorer, "forward", watch.timed("log-probs", Scorer.forward)):
            rlvr.run.train(config)


def run_trl(case: Case, folder: Path, num_steps: int, watch: Stopwatch, *, bf16: bool) -> None:
    """Take steps with TRL, generating with transformers."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    class EndStep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            watch.end_step()

    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(dir=folder),
        max_steps=num_steps,
        per_device_train_batch_size=case.prompts * case.group_size,
        gradient_accumulation_steps=1,
        num_generations=case.group_size,
        max_completion_length=case.max_new_tokens,
        temperature=1.0,
        beta=0.0,
        loss_type="grpo",
        learning_rate=1e-6,
        bf16=bf16,
        use_cpu=True,
        use_vllm=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=lambda completions, **_: [share_of_digits(text) for text in completions],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": question} for question in questions(case)]),
        callbacks=[EndStep()],
    )
    trainer.log = lambda *_, **__: None  # prints a line a step
    generate, rewards, score = trainer._generate, trainer._calculate_rewards, trainer._get_per_token_logps_and_entropies

    def timed_generate(prompts):
        with watch.part("generation"):
            result = generate(prompts)
        watch.lengths += [len(ids) for ids in result[1]]
        return result

    trainer._generate = timed_generate
    trainer._calculate_rewards = watch.timed("generation", rewards)
    trainer._get_per_token_logps_and_entropies = watch.timed("log-probs", score)
    trainer.train()


@contextmanager
def patched(owner: type, name: str, replacement) -> Iterator[None]:
    """Put a timed version in the place of a method."""
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


def one_round(side: Side, case: Case, folder: Path, num_steps: int) -> Stopwatch:
    """Take `num_steps` steps after the warm-up and return what they took."""
    watch = Stopwatch()
    backward = torch.Tensor.backward
    started: list[float] = []
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: started.append(time.process_time())),
        register_optimizer_step_post_hook(lambda *_: add_optimizer_time(watch, started)),
    ]
    with patched(torch.Tensor, "backward", watch.timed("backward", backward)):
        if side == "rlvr":
            run_rlvr(case, folder, num_steps + NUM_WARM_UP, watch)
        else:
            run_trl(case, folder, num_steps + NUM_WARM_UP, watch, bf16=side == "trl bf16")
    for hook in hooks:
        hook.remove()
    watch.steps = watch.steps[NUM_WARM_UP:]
    gc.collect()
    return watch


def add_optimizer_time(watch: Stopwatch, started: list[float]) -> None:
    watch.current.parts["optimizer"] += time.process_time() - started.pop()


# The report


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one side of one case, in milliseconds; lengths are of completions, in tokens."""

    case: str
    num_parameters: int
    side: Side
    num_steps: int
    step_cpu_ms: float
    step_cpu_ms_min: float
    step_cpu_ms_max: float
    step_wall_ms: float
    parts_cpu_ms: dict[str, float]
    mean_length: float
    max_length: int


def summarise(case: Case, num_parameters: int, side: Side, watches: Sequence[Stopwatch]) -> Row:
    """Reduce the rounds of one side to medians."""
    steps = [step for watch in watches for step in watch.steps]
    lengths = [length for watch in watches for length in watch.lengths]
    cpu = [1000 * step.cpu for step in steps]
    return Row(
        case=case.name,
        num_parameters=num_parameters,
        side=side,
        num_steps=len(steps),
        step_cpu_ms=statistics.median(cpu),
        step_cpu_ms_min=min(cpu),
        step_cpu_ms_max=max(cpu),
        step_wall_ms=statistics.median(1000 * step.wall for step in steps),
        parts_cpu_ms={part: statistics.median(1000 * step.parts[part] for step in steps) for part in PARTS},
        mean_length=statistics.fmean(lengths),
        max_length=max(lengths),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table, with each side's time as a multiple of rlvr's."""
    lines = [
        "| case | parameters | side | steps | CPU ms a step (min–max) | wall ms | × rlvr (CPU) | × rlvr (wall) | "
        "generation and rewards | log-probs | backward | optimizer | mean / max length |",
        "|" + "---|" * 13,
    ]
    ours = {row.case: row for row in rows if row.side == "rlvr"}
    for row in rows:
        own = ours[row.case]
        parts = " | ".join(f"{row.parts_cpu_ms[part]:.0f}" for part in PARTS)
        lines.append(
            f"| {row.case} | {row.num_parameters / 1e6:.2f} M | {row.side} | {row.num_steps} | {row.step_cpu_ms:.0f} "
            f"({row.step_cpu_ms_min:.0f}–{row.step_cpu_ms_max:.0f}) | {row.step_wall_ms:.0f} | {row.step_cpu_ms / own.step_cpu_ms:.2f} | "
            f"{row.step_wall_ms / own.step_wall_ms:.2f} | {parts} | {row.mean_length:.1f} / {row.max_length} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Name the processor and what it computes by itself."""
    bfloat16 = "with" if torch.cpu._is_avx512_bf16_supported() else "without"
    return f"{processor()} ({os.cpu_count()} cores), {bfloat16} native bfloat16"


def main() -> None:
    """Measure, print and write the result."""
    import transformers
    import trl

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows: list[Row] = []
    for name in options.cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            num_parameters = build(case, folder)
            watches: dict[Side, list[Stopwatch]] = {side: [] for side in SIDES}
            for _ in range(options.rounds):
                for side in SIDES:
                    watches[side].append(one_round(side, case, folder, options.steps))
        rows += [summarise(case, num_parameters, side, watches[side]) for side in SIDES]
        print(table(rows[-len(SIDES) :]), flush=True)
    about = (
        f"{date.today()}, {machine()}, one thread; torch {torch.__version__}, transformers {transformers.__version__}, "
        f"trl {trl.__version__}. "
        f"{options.rounds} rounds of {options.steps} steps a side, alternating; medians. The machine was shared: trust ratios, not times."
    )
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"{date.today()}-trl-step"
    stem.with_suffix(".json").write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    title = "# Time per training step: rlvr and TRL's GRPOTrainer, side by side"
    stem.with_suffix(".md").write_text(f"{title}\n\n{about}\nScript: `bench/trl_step.py`.\n\n{table(rows)}\n")
    print(f"\n{about}\nwritten: {stem}.md, {stem}.json")


if __name__ == "__main__":
    main()
