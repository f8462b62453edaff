"""`rlvr prm train`: learns to judge steps; a run like others, with checkpoints, metrics and a way to go on."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlvr.errors import DataError, NonFinite
from rlvr.policy.optimizer import build_optimizer, learning_rate
from rlvr.prm.classifier import Classifier, Sample, load_classifier, make_batch, make_samples, microbatches
from rlvr.prm.config import InputConfig, PrmConfig
from rlvr.prm.data import StepExample, load_examples, part_by_question
from rlvr.prm.scores import JudgedSteps, StepScores, score_steps
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
from rlvr.seeding import derive_seed
from rlvr.session import prepare_process
from rlvr.tracking import names
from rlvr.tracking.progress import Progress, StepReport, open_progress
from rlvr.tracking.sinks import check_sinks

STATE_FILE = "prm_state.json"
OPTIMIZER_FILE = "optimizer.pt"


@dataclass(frozen=True, slots=True)
class PrmResult:
    """Where the run lies; `export` is what the verifier `process_reward` takes. `scores` are of the held-out solutions, if there are."""

    folder: Path
    export: Path
    steps_done: int
    scores: StepScores | None

    def summary(self) -> str:
        """Two lines: how well it judges, and where it lies."""
        judged = f"{self.scores.summary()}\n" if self.scores is not None else ""
        return f"{judged}steps of training: {self.steps_done} export: {self.export}"


def train_prm(config: PrmConfig, *, resume: Path | None = None) -> PrmResult:
    """Train a process reward model and return the result; with `resume`, go on from that run's (or checkpoint's) state.

    Raises: ConfigError, DataError, CheckpointError: before anything is trained. NonFinite: the loss or the gradient is no number.
    """
    resumption = find_resumption(resume) if resume is not None else None
    folder = resumption.folder if resumption is not None else choose_run_folder(config, kind="prm")
    check_sinks(config.tracking.sinks)
    prepare_process()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    with naming_the_way_on(folder, "prm train"), open_progress(f"prm · {folder.path}") as progress:
        return _Run(config, folder, resumption, progress).to_the_end()


class _Run:
    def __init__(self, config: PrmConfig, folder: RunFolder, resumption: Resumption | None, progress: Progress) -> None:
        self._config = config
        self._folder = folder
        self._resumption = resumption
        self._progress = progress
        learned, held_out = self._load()
        self._classifier = self._load_classifier()
        self._learned = self._samples(learned, "learned from", every_token=config.learn_on == "every_token")
        self._held_out = self._samples(held_out, "held out")
        if not self._learned:
            raise DataError(f"{config.data.path}: no solution has a labelled step within input.max_tokens={config.input.max_tokens} tokens")
        self._num_steps = config.num_steps or math.ceil(len(self._learned) / config.samples_per_step)
        self._parameters = [parameter for parameter in self._classifier.model.parameters() if parameter.requires_grad]
        self._optimizer = build_optimizer(self._parameters, config.optimizer)
        self._store = folder.store(config.checkpoint)
        self._steps_done = 0
        self._epoch, self._order = -1, [0]
        if resumption is not None:
            checkpoint = resumption.checkpoint.folder
            self._steps_done = json.loads((checkpoint / STATE_FILE).read_text())["steps_done"]
            self._optimizer.load_state_dict(torch.load(checkpoint / OPTIMIZER_FILE, weights_only=True))

    def _load(self) -> tuple[list[StepExample], list[StepExample]]:
        config = self._config
        read = load_examples(config.data)
        learned, held_out = read.examples, []
        if config.held_out is not None:
            held_out = load_examples(config.held_out).examples
        elif config.held_out_share:
            learned, held_out = part_by_question(read.examples, config.held_out_share)
            if not learned or not held_out:
                self._progress.warn(f"too few questions to hold out a share of {config.held_out_share:g}: nothing is held out")
                learned, held_out = read.examples, []
        left_out = f", {read.num_skipped} malformed rows left out" if read.num_skipped else ""
        self._progress.note(f"{config.data.path}: {len(learned)} solutions to learn from, {len(held_out)} held out{left_out}")
        return learned, held_out

    def _load_classifier(self) -> Classifier:
        if self._resumption is None:
            return load_classifier(self._config.model, self._config.input, seed=self._config.seed)
        export = self._resumption.checkpoint.folder / "export"
        saved = self._config.model.model_copy(update={"path": str(export), "tokenizer": None, "revision": None})
        return load_classifier(saved, InputConfig(), seed=self._config.seed)

    def _samples(self, examples: Sequence[StepExample], called: str, *, every_token: bool = False) -> list[Sample]:
        samples, num_cut = make_samples(examples, self._classifier, self._config.input.max_tokens, every_token=every_token)
        if num_cut:
            limit = self._config.input.max_tokens
            self._progress.warn(f"{num_cut} solutions {called} have steps behind input.max_tokens={limit}, which are left out")
        return samples

    def to_the_end(self) -> PrmResult:
        resumed = self._resumption
        if resumed is not None and (nothing_left := check_steps_left(self._steps_done, self._num_steps)):
            self._progress.note(nothing_left)
        open_run_folder(self._folder, self._config)
        if resumed is not None:
            self._store.go_on_from(resumed.checkpoint)
        scores = None
        with MetricsRecord(self._config, self._folder, resume_step=None if resumed is None else self._steps_done) as record:
            while self._steps_done < self._num_steps:
                metrics = self._one_step()
                step, last = self._steps_done, self._steps_done == self._num_steps
                scores = None
                every = self._config.evaluate_every
                if self._held_out and (last or (every and step % every == 0)):
                    scores = self._score()
                    metrics |= scores.metrics()
                    self._progress.note(f"step {step}: {scores.summary()}")
                record.write(step, metrics)
                self._progress.step(StepReport(step, self._num_steps, metrics))
                every = self._config.checkpoint.every
                if last or (every and step % every == 0):
                    self._store.save(step, self._save, score=metrics.get(self._config.checkpoint.best_by))
        if scores is None and self._held_out:
            scores = self._score()
        return PrmResult(self._folder.path, self._store.folder / f"step_{self._steps_done:06d}" / "export", self._steps_done, scores)

    def _one_step(self) -> dict[str, float]:
        began = time.perf_counter()
        config, step = self._config, self._steps_done
        samples = [self._sample_at(step * config.samples_per_step + offset) for offset in range(config.samples_per_step)]
        num_labels = sum(len(sample.labels) for sample in samples)
        loss = 0.0
        for group in microbatches(samples, config.tokens_per_microbatch):
            share = self._classifier.loss_sum(make_batch(group, self._classifier.device)) / num_labels
            share.backward()
            loss += share.item()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, config.optimizer.max_grad_norm).item()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise NonFinite(f"step {step + 1}: loss {loss}, gradient norm {norm}: lower optimizer.learning_rate")
        rate = learning_rate(config.optimizer, step, self._num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps_done += 1
        return {
            names.SUPERVISED_LOSS: loss,
            names.SUPERVISED_TOKENS: float(sum(len(sample.token_ids) for sample in samples)),
            names.GRAD_NORM: norm,
            names.LEARNING_RATE: rate,
            names.STEP_SECONDS: time.perf_counter() - began,
        }

    def _sample_at(self, index: int) -> Sample:
        """The endless supply: every sample once an epoch, in an order of its own in each."""
        epoch, place = divmod(index, len(self._learned))
        if self._epoch != epoch:
            self._epoch, self._order = epoch, list(range(len(self._learned)))
            random.Random(derive_seed(self._config.seed, "prm order", epoch)).shuffle(self._order)
        return self._learned[self._order[place]]

    def _score(self) -> StepScores:
        solutions = []
        with self._progress.phase("held-out solutions", len(self._held_out)) as advance:
            for group in microbatches(self._held_out, self._config.tokens_per_microbatch):
                probabilities = iter(self._classifier.right_probabilities(make_batch(group, self._classifier.device)))
                solutions += [JudgedSteps(sample.labels, tuple(next(probabilities) for _ in sample.labels)) for sample in group]
                advance(len(group))
        return score_steps(solutions)

    def _save(self, folder: Path) -> None:
        self._classifier.export(folder / "export")
        torch.save(self._optimizer.state_dict(), folder / OPTIMIZER_FILE)
        (folder / STATE_FILE).write_text(json.dumps({"steps_done": self._steps_done}))
