"""A whole training run: build the parts, step, log, guard, evaluate, save; and go on where a killed run stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rlvr.config import RunConfig
from rlvr.credit import scores_are_informative
from rlvr.distributed import Ranks, joined_ranks
from rlvr.episodes import build_collector, build_sampler, sampling_of
from rlvr.errors import WeightSyncMismatch
from rlvr.evaluation.held_out import HeldOutResult, evaluate_held_out
from rlvr.exchange import WorkSplit
from rlvr.guards import GuardState
from rlvr.implicit_rewards import ImplicitRewardModel
from rlvr.judge import Judge
from rlvr.mismatch import NUM_PROMPTS, Mismatch, probe_mismatch
from rlvr.rewards import KlController
from rlvr.rollouts.buffer import RolloutBuffer
from rlvr.rollouts.group_file import Replay, read_facts
from rlvr.rollouts.producer import GroupSource, Producer
from rlvr.run_data import RunData, load_run_data
from rlvr.run_evaluations import RunEvaluations, check_metric_names, reason_to_stop
from rlvr.run_folder import (
    Resumption,
    RunFolder,
    check_steps_left,
    choose_run_folder,
    find_resumption,
    naming_the_way_on,
    open_run_folder,
)
from rlvr.run_record import RunRecord
from rlvr.run_state import RunState, load_state, save_state
from rlvr.session import Session, open_session_of, open_weight_sync, sync_tolerance
from rlvr.step_metrics import step_metrics
from rlvr.supervised import Demonstrations
from rlvr.tracking.metrics import read_metrics
from rlvr.tracking.names import SAMPLED_ACCURACY
from rlvr.tracking.progress import Progress, StepReport, open_progress
from rlvr.tracking.sinks import check_sinks
from rlvr.trainer import StepResult, Trainer
from verifiers.registry import build

IMPLICIT_FOLDER = "implicit_reward"
"""Where a checkpoint keeps the implicit reward model, beside `policy`; the model alone lies in `implicit_reward_export`."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where the run lies and what it gained on held-out problems; `first` and `last` are None where nothing was held out."""

    folder: Path
    export: Path
    first: HeldOutResult | None
    last: HeldOutResult | None

    def summary(self) -> str:
        """One line: held-out accuracy before and after."""
        if self.first is None or self.last is None:
            return f"run: {self.folder}"
        text = f"held-out accuracy: {self.first.greedy_accuracy:.3f} -> {self.last.greedy_accuracy:.3f} greedy"
        if self.first.sampled_accuracy is not None and self.last.sampled_accuracy is not None:
            text += f", {self.first.sampled_accuracy:.2f} -> {self.last.sampled_accuracy:.2f} sampled"
        return f"{text} ({self.last.num_problems} problems) run: {self.folder}"


def train(config: RunConfig, *, resume: Path | None = None) -> TrainResult:
    """Train to `num_steps` and return the result; with `resume`, go on from that run's (or checkpoint's) state.

    Raises: ConfigError, DataError, CheckpointError: before anything is trained. TrainingStopped: a guard ended the run.
    """
    with joined_ranks(config) as ranks:
        resumption = ranks.from_main(lambda: find_resumption(resume) if resume is not None else None)
        folder = ranks.from_main(lambda: resumption.folder if resumption else choose_run_folder(config, kind=config.algorithm.name))
        check_sinks(config.tracking.sinks)
        judge = Judge.of(build(config.verifier.name, config.verifier.options), config.verifier)
        title = f"{config.algorithm.name} · {folder.path}"
        with naming_the_way_on(folder, "train"), open_progress(title, rank=ranks.rank) as progress:
            return asyncio.run(_train(config, folder, resumption, judge, progress, ranks))


async def _train(
    config: RunConfig, folder: RunFolder, resumption: Resumption | None, judge: Judge, progress: Progress, ranks: Ranks
) -> TrainResult:
    async with AsyncExitStack() as stack:
        num_updates = config.num_steps * config.batch.minibatches_per_step
        session = await stack.enter_async_context(
            open_session_of(config, run_folder=folder.path, num_updates=num_updates, ranks=ranks, tell=progress.warn)
        )
        data = load_run_data(config, session.loaded.tokenizer)
        for note in data.notes:
            progress.note(note)
        run = Run(config, folder, session, data, judge, progress, resumption)
        return await run.to_the_end()


class Run:
    """The state of one training run between its steps; with several ranks, each one's."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        session: Session,
        data: RunData,
        judge: Judge,
        progress: Progress,
        resumption: Resumption | None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._session = session
        self._data = data
        self._progress = progress
        self._resumption = resumption
        state = _restore(resumption, session, data) if resumption is not None else None
        self._resume_step = state.steps_done if state is not None else None
        self._ranks = ranks = session.ranks
        self._judge = judge
        self._sampler = build_sampler(config, session)
        self._sampling = sampling_of(config)
        self._buffer = RolloutBuffer(
            groups_per_step=config.batch.prompts_per_step // ranks.size,
            max_staleness=config.batch.max_staleness,
            oversampling=config.batch.oversampling,
            steps_done=state.steps_done if state else 0,
            first_index=ranks.rank,
            stride=ranks.size,
            state=state.buffer if state else None,
        )
        self._producer = Producer(
            buffer=self._buffer,
            collector=self._group_source(),
            # What was dumped was informative when it was sampled, and all of it is to be learned from.
            informative_only=config.algorithm.informative_groups_only and not config.rollouts.replay,
            is_informative=partial(scores_are_informative, config=config.algorithm),
            max_drops_per_step=config.batch.max_resampling * config.batch.prompts_per_step // ranks.size,
            max_failure_rate=config.guards.max_failure_rate,
            failures=state.failures if state else (),
        )
        self._weight_sync = open_weight_sync(session, config, [data.prompt_at(index).token_ids for index in range(2)], self._sampling)
        if config.rollouts.replay:
            self._off_policy = read_facts(Path(config.rollouts.replay)).off_policy
        else:
            self._off_policy = config.batch.max_staleness > 0 or not session.engine.shares_weights
        kl = KlController.from_config(config.algorithm.kl)
        split = WorkSplit(
            config.batch.tokens_per_microbatch,
            config.batch.share_prompts,
            session.loaded.model.config.get_text_config().hidden_size,
        )
        self._trainer = Trainer(
            policy=session.policy,
            producer=self._producer,
            buffer=self._buffer,
            weight_sync=self._weight_sync,
            compute=session.compute,
            algorithm=config.algorithm,
            batch=config.batch,
            max_new_tokens=config.sampling.max_new_tokens,
            device=session.loaded.device,
            work_split=split,
            ranks=ranks,
            balance=config.deepspeed is not None and config.deepspeed.balance,
            demonstrations=_demonstrations(config, session, data),
            implicit_rewards=_implicit_rewards(config, session, split),
            kl=replace(kl, coefficient=state.kl_coefficient) if state and kl.adaptive else kl,
            steps_done=state.steps_done if state else 0,
            off_policy=self._off_policy,
        )
        self._guards = GuardState(
            config.guards, state.offences if state else None, compares_within_group=config.algorithm.compares_within_group
        )
        self._evaluations = RunEvaluations.of(config, session, self._sampler, folder.path, progress)
        check_metric_names(config, self._evaluations)
        self._is_over = False
        self._store = folder.store(config.checkpoint)
        self._record = RunRecord(config, folder, resume_step=self._resume_step, off_policy=self._off_policy) if ranks.is_main else None

    def _group_source(self) -> GroupSource:
        config = self._config
        if config.rollouts.replay:
            return Replay(Path(config.rollouts.replay))
        return build_collector(config, self._session, self._sampler, self._data.prompt_at, self._judge)

    async def to_the_end(self) -> TrainResult:
        """Run the steps that are left."""
        if self._resumption is not None and (nothing_left := check_steps_left(self._trainer.steps_done, self._config.num_steps)):
            self._progress.note(nothing_left)
        with ExitStack() as stack:
            if self._ranks.is_main:
                open_run_folder(self._folder, self._config)
                if self._resumption is not None:
                    self._store.go_on_from(self._resumption.checkpoint)
            if self._record is not None:
                stack.enter_context(self._record)
            self._ranks.meet()
            await self._bring_engine()
            first, last = await self._first_evaluation()
            async with self._producer.running():
                while self._trainer.steps_done < self._config.num_steps and not self._is_over:
                    last = await self._one_step() or last
        return TrainResult(self._folder.path, self._store.folder / f"step_{self._trainer.steps_done:06d}" / "export", first, last)

    async def _bring_engine(self) -> None:
        """Bring the engine to the policy's weights, and look whether the two say the same before anything is learned.

        Raises: WeightSyncMismatch: they do not, and the engine has weights of its own; with the cause, where it is known.
        """
        try:
            await self._weight_sync.publish(self._trainer.steps_done)
        except WeightSyncMismatch as error:
            found = await self._probe()
            raise WeightSyncMismatch(f"{error}. The cause: {found.sentence}" if found.cause else str(error)) from error
        found = await self._probe()
        (self._progress.note if found.agrees else self._progress.warn)(found.sentence)

    async def _probe(self) -> Mismatch:
        return await probe_mismatch(
            self._session,
            [self._data.prompt_at(index).token_ids for index in range(NUM_PROMPTS)],
            self._sampling,
            tolerance=sync_tolerance(self._session, self._config),
        )

    async def _one_step(self) -> HeldOutResult | None:
        own = await self._trainer.step()
        held_out, measured = await self._measure()
        results = await asyncio.to_thread(self._ranks.collected, own.without_samples())
        if results is not None:
            self._report(StepResult.of_all(results), measured)
        if self._is_over or self._is_due(self._config.checkpoint.every):
            await self._save(self._score(held_out, measured))
        return held_out

    def _score(self, held_out: HeldOutResult | None, measured: Mapping[str, float]) -> float | None:
        """What the best checkpoint is chosen by."""
        if self._config.checkpoint.best_by == SAMPLED_ACCURACY:
            return held_out.score if held_out is not None else None
        return measured.get(self._config.checkpoint.best_by)

    async def _measure(self) -> tuple[HeldOutResult | None, dict[str, float]]:
        """Measure what is due on problems apart from training; everything, once the run is over."""
        done = self._trainer.steps_done
        held_out = await self._evaluate() if self._is_due(self._config.held_out.every) else None
        measured = (held_out.metrics() if held_out is not None else {}) | await self._evaluations.run(done)
        reason = await self._reason_to_stop(measured)
        if reason is not None:
            self._progress.note(f"stopped at step {done}: {reason}")
        self._is_over = reason is not None or done == self._config.num_steps
        if self._is_over:
            held_out = held_out or await self._evaluate()
            measured |= (held_out.metrics() if held_out is not None else {}) | await self._evaluations.finish(done)
        return held_out, measured

    async def _reason_to_stop(self, measured: Mapping[str, float]) -> str | None:
        stop = self._config.early_stop
        if stop is None or stop.metric not in measured:
            return None
        rows = await asyncio.to_thread(self._ranks.from_main, lambda: read_metrics(self._folder.metrics))
        before = [value for row in rows if (value := row.values.get(stop.metric)) is not None]
        return reason_to_stop([*before, measured[stop.metric]], stop)

    def _report(self, result: StepResult, measured: Mapping[str, float]) -> None:
        """Write down and show what all ranks did and measured, and look whether it teaches anything; on the main rank.

        Raises: TrainingStopped: a guard was offended too long.
        """
        assert self._record is not None
        metrics = step_metrics(result) | dict(measured)
        self._record.step(result, metrics, self._session.loaded.tokenizer.decode)
        self._progress.step(StepReport(result.step, self._config.num_steps, metrics))
        for warning in self._guards.check(metrics):
            self._progress.warn(warning)

    def _is_due(self, every: int) -> bool:
        done = self._trainer.steps_done
        return done == self._config.num_steps or (every > 0 and done % every == 0)

    async def _first_evaluation(self) -> tuple[HeldOutResult | None, HeldOutResult | None]:
        """Measure before the first step; a resumed run reads what it measured first and last."""
        if self._resume_step is not None:
            rows = [HeldOutResult.from_metrics(row.values) for row in read_metrics(self._folder.metrics)]
            measured = [result for result in rows if result is not None]
            return (measured[0], measured[-1]) if measured else (None, None)
        held_out = await self._evaluate()
        measured = (held_out.metrics() if held_out is not None else {}) | await self._evaluations.run(0)
        if measured and self._record is not None:
            self._record.write(0, measured)
        if held_out is not None:
            self._progress.note(f"before training: {held_out.summary()}")
        return held_out, held_out

    async def _evaluate(self) -> HeldOutResult | None:
        if not self._data.held_out:
            return None
        own = len(self._data.held_out[self._ranks.rank :: self._ranks.size])
        with self._progress.phase("held-out problems", total=own) as advance:
            return await evaluate_held_out(
                self._data.held_out,
                sampler=self._sampler,
                judge=self._judge,
                sampling=self._sampling,
                num_samples=self._config.held_out.num_samples,
                seed=self._config.seed,
                advance=advance,
                ranks=self._ranks,
            )

    async def _save(self, score: float | None) -> None:
        state = RunState(
            steps_done=self._trainer.steps_done,
            buffer=self._buffer.state(),
            kl_coefficient=self._trainer.kl.coefficient,
            offences=self._guards.offences,
            failures=self._producer.failures,
        )

        def write(folder: Path) -> None:
            self._session.policy.save(folder / "policy")
            self._session.policy.export(folder / "export")
            if self._session.implicit_policy is not None:
                self._session.implicit_policy.save(folder / IMPLICIT_FOLDER)
                self._session.implicit_policy.export(folder / f"{IMPLICIT_FOLDER}_export")
            save_state(folder, state, self._ranks)

        await self._session.compute.run(self._store.save, self._trainer.steps_done, write, score=score, ranks=self._ranks)


def _restore(resumption: Resumption, session: Session, data: RunData) -> RunState:
    session.policy.load(resumption.checkpoint.folder / "policy")
    if session.implicit_policy is not None:
        session.implicit_policy.load(resumption.checkpoint.folder / IMPLICIT_FOLDER)
    return load_state(resumption.checkpoint.folder, data.prompt_at, session.ranks)


def _implicit_rewards(config: RunConfig, session: Session, split: WorkSplit) -> ImplicitRewardModel | None:
    if session.implicit_policy is None:
        return None
    return ImplicitRewardModel(session.implicit_policy, config.algorithm.implicit, split, device=session.loaded.device, ranks=session.ranks)


def _demonstrations(config: RunConfig, session: Session, data: RunData) -> Demonstrations | None:
    if config.supervised_mix is None or data.demonstration_at is None:
        return None
    return Demonstrations(
        sample_at=data.demonstration_at,
        samples_per_step=config.supervised_mix.samples_per_step,
        tokens_per_microbatch=config.batch.tokens_per_microbatch,
        device=session.loaded.device,
        weight=config.supervised_mix.weight,
        ranks=session.ranks,
    )
