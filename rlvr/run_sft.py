"""A supervised run: learn from demonstrations until the steps are done or validation problems are solved often enough."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from rlvr.config import EarlyStopConfig, GuardConfig, SftConfig, WeightSyncConfig
from rlvr.data.problems import load_problems
from rlvr.data.prompt_stream import build_prompts
from rlvr.distributed import Ranks, joined_ranks
from rlvr.evaluation.held_out import HeldOutResult, evaluate_held_out
from rlvr.guards import GuardState
from rlvr.rollouts.collector import Judge
from rlvr.rollouts.sampler import SingleTurn
from rlvr.run_data import load_demonstration_samples
from rlvr.run_folder import (
    Resumption,
    RunFolder,
    check_steps_left,
    choose_run_folder,
    find_resumption,
    naming_the_way_on,
    open_run_folder,
)
from rlvr.run_record import MetricsRecord
from rlvr.session import Session, open_session
from rlvr.supervised import Demonstrations, SupervisedTrainer
from rlvr.tracking import names
from rlvr.tracking.metrics import read_metrics
from rlvr.tracking.progress import Progress, StepReport, open_progress
from rlvr.tracking.sinks import check_sinks
from rlvr.types import Prompt, Sampling
from verifiers.registry import build

STATE_FILE = "sft_state.json"
VALIDATION = "validation/"


@dataclass(frozen=True, slots=True)
class SftResult:
    """Where the run lies; `export` is a plain `save_pretrained` folder. `validation` is the last check of the early stop."""

    folder: Path
    export: Path
    steps_done: int
    validation: HeldOutResult | None

    def summary(self) -> str:
        """One line: how long it went and how well it ended."""
        reached = f", validation accuracy: {self.validation.score:.2f} sampled" if self.validation is not None else ""
        return f"supervised steps: {self.steps_done}{reached} export: {self.export}"


def sft(config: SftConfig, *, resume: Path | None = None) -> SftResult:
    """Train on demonstrations and return the result; with `resume`, go on from that run's (or checkpoint's) state.

    Raises: ConfigError, DataError, CheckpointError: before anything is trained.
    """
    with joined_ranks(config) as ranks:
        resumption = ranks.from_main(lambda: find_resumption(resume) if resume is not None else None)
        folder = ranks.from_main(lambda: resumption.folder if resumption else choose_run_folder(config, kind="sft"))
        check_sinks(config.tracking.sinks)
        with naming_the_way_on(folder, "sft"), open_progress(f"sft · {folder.path}", rank=ranks.rank) as progress:
            return asyncio.run(_sft(config, folder, resumption, progress, ranks))


async def _sft(config: SftConfig, folder: RunFolder, resumption: Resumption | None, progress: Progress, ranks: Ranks) -> SftResult:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            open_session(
                config.model,
                seed=config.seed,
                optimizer=config.optimizer,
                engine=config.engine,
                sync=WeightSyncConfig(),
                temperature=1.0,
                num_updates=config.num_steps,
                needs_reference=False,
                tokens_per_microbatch=config.tokens_per_microbatch,
                max_sequence_tokens=_longest_sequence(config),
                run_folder=folder.path,
                num_threads=config.num_threads,
                deterministic=config.deterministic,
                deepspeed=config.deepspeed,
                ranks=ranks,
            )
        )
        sample_at, note = load_demonstration_samples(config.data, session.loaded.tokenizer, config.seed)
        progress.note(note)
        demonstrations = Demonstrations(
            sample_at, config.samples_per_step, config.tokens_per_microbatch, session.loaded.device, ranks=ranks
        )
        steps_done = 0
        if resumption is not None:
            session.policy.load(resumption.checkpoint.folder / "policy")
            steps_done = json.loads((resumption.checkpoint.folder / STATE_FILE).read_text())["steps_done"]
        run = _SftRun(config, folder, session, SupervisedTrainer(session.policy, demonstrations, steps_done=steps_done), progress)
        return await run.to_the_end(resumption)


class _SftRun:
    def __init__(self, config: SftConfig, folder: RunFolder, session: Session, trainer: SupervisedTrainer, progress: Progress) -> None:
        self._config = config
        self._folder = folder
        self._session = session
        self._ranks = session.ranks
        self._trainer = trainer
        self._progress = progress
        self._store = folder.store(config.checkpoint)
        self._check = _Check.of(config.early_stop, session, config.seed) if config.early_stop is not None else None

    async def to_the_end(self, resumption: Resumption | None) -> SftResult:
        if resumption is not None and (nothing_left := check_steps_left(self._trainer.steps_done, self._config.num_steps)):
            self._progress.note(nothing_left)
        resume_step = None if resumption is None else self._trainer.steps_done
        if self._ranks.is_main:
            open_run_folder(self._folder, self._config)
            if resumption is not None:
                self._store.go_on_from(resumption.checkpoint)
        with ExitStack() as stack:
            record = None
            if self._ranks.is_main:
                record = stack.enter_context(MetricsRecord(self._config, self._folder, resume_step=resume_step))
            self._ranks.meet()
            validation = self._ranks.from_main(lambda: _last_validation(self._folder.metrics))
            while self._trainer.steps_done < self._config.num_steps and not self._is_enough(validation):
                metrics = await self._one_step()
                GuardState(GuardConfig()).check({names.LOSS: metrics[names.SUPERVISED_LOSS], names.GRAD_NORM: metrics[names.GRAD_NORM]})
                step = self._trainer.steps_done
                score = None
                if self._check is not None and step % self._check.config.every == 0:
                    validation = await self._check.run(self._progress, step)
                    score = validation.score
                    metrics |= {VALIDATION + name.partition("/")[2]: value for name, value in validation.metrics().items()}
                if record is not None:
                    record.write(step, metrics)
                self._progress.step(StepReport(step, self._config.num_steps, metrics))
                enough = self._is_enough(validation)
                if enough:
                    self._progress.note(f"stopped at step {step}: {validation.summary()}")
                every = self._config.checkpoint.every
                if enough or step == self._config.num_steps or (every > 0 and step % every == 0):
                    await self._save(score)
        export = self._store.folder / f"step_{self._trainer.steps_done:06d}" / "export"
        return SftResult(self._folder.path, export, self._trainer.steps_done, validation)

    def _is_enough(self, validation: HeldOutResult | None) -> bool:
        return self._check is not None and validation is not None and validation.score >= self._check.config.accuracy

    async def _one_step(self) -> dict[str, float]:
        began = time.perf_counter()
        result, num_tokens = await self._session.compute.run(self._trainer.step)
        return {
            names.SUPERVISED_LOSS: result.loss,
            names.SUPERVISED_TOKENS: float(num_tokens),
            names.GRAD_NORM: result.grad_norm,
            names.LEARNING_RATE: result.learning_rate,
            names.STEP_SECONDS: time.perf_counter() - began,
        }

    async def _save(self, score: float | None) -> None:
        def write(folder: Path) -> None:
            self._session.policy.save(folder / "policy")
            self._session.policy.export(folder / "export")
            if self._ranks.is_main:
                (folder / STATE_FILE).write_text(json.dumps({"steps_done": self._trainer.steps_done}))

        await self._session.compute.run(self._store.save, self._trainer.steps_done, write, score=score, ranks=self._ranks)


def _longest_sequence(config: SftConfig) -> int:
    """What the engine may be asked for: the validation problems of the early stop."""
    check = config.early_stop
    return check.data.max_prompt_tokens + check.sampling.max_new_tokens if check is not None else config.tokens_per_microbatch


def _last_validation(metrics: Path) -> HeldOutResult | None:
    """The last check that the metrics tell of; a resumed run goes on with what it knew."""
    rows = [
        {f"held_out/{name.removeprefix(VALIDATION)}": value for name, value in row.values.items() if name.startswith(VALIDATION)}
        for row in read_metrics(metrics)
    ]
    results = [result for row in rows if (result := HeldOutResult.from_metrics(row)) is not None]
    return results[-1] if results else None


@dataclass(frozen=True, slots=True)
class _Check:
    """The early stop's validation problems and how they are answered and judged."""

    config: EarlyStopConfig
    prompts: list[Prompt]
    judge: Judge
    session: Session
    seed: int

    @classmethod
    def of(cls, config: EarlyStopConfig, session: Session, seed: int) -> _Check:
        prompts = build_prompts(load_problems(config.data).problems, session.loaded.tokenizer, config.data).prompts
        return cls(config, prompts, Judge.of(build(config.verifier.name, config.verifier.options), config.verifier), session, seed)

    async def run(self, progress: Progress, step: int) -> HeldOutResult:
        await self.session.bring_engine(step)
        sampling = Sampling(
            max_new_tokens=self.config.sampling.max_new_tokens,
            temperature=self.config.sampling.temperature,
            top_p=self.config.sampling.top_p,
            top_k=self.config.sampling.top_k,
        )
        with progress.phase("validation problems", total=len(self.prompts[self.session.ranks.rank :: self.session.ranks.size])) as advance:
            return await evaluate_held_out(
                self.prompts,
                sampler=SingleTurn(self.session.engine),
                judge=self.judge,
                sampling=sampling,
                num_samples=1,
                seed=self.seed,
                advance=advance,
                ranks=self.session.ranks,
            )
