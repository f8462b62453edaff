"""What a training run writes down beside checkpoints: metrics, their copies in trackers, rollout tables, dumped groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rlvr.config import RunConfig, SftConfig
from rlvr.rollouts.group_file import DumpFacts, GroupDump
from rlvr.run_folder import RunFolder
from rlvr.step_metrics import rollout_rows
from rlvr.tracking.metrics import MetricsLog
from rlvr.tracking.rollout_table import RolloutTable
from rlvr.tracking.sinks import RunLabel, open_sinks
from rlvr.trainer import StepResult


class MetricsRecord:
    """`metrics.jsonl` and its copies in trackers, open while the block runs."""

    def __init__(self, config: RunConfig | SftConfig, folder: RunFolder, *, resume_step: int | None) -> None:
        """`resume_step`: the step a resumed run goes on from; what was written of later ones is taken back."""
        self._config = config
        self._folder = folder
        self._resume_step = resume_step
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._log = stack.enter_context(MetricsLog(self._folder.metrics, resume_step=self._resume_step))
            tracking = self._config.tracking
            label = RunLabel(
                self._folder.path, tracking.project, self._folder.path.name, self._config.model_dump(mode="json"), self._resume_step
            )
            self._sinks = open_sinks(tracking.sinks, label)
            for sink in self._sinks:
                stack.callback(sink.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a row of metrics."""
        self._log.write(step, metrics)
        for sink in self._sinks:
            sink.write(step, metrics)


class RunRecord(MetricsRecord):
    """The same with rollout tables and dumped groups."""

    def __init__(self, config: RunConfig, folder: RunFolder, *, resume_step: int | None, off_policy: bool) -> None:
        """`off_policy`: see `DumpFacts`."""
        super().__init__(config, folder, resume_step=resume_step)
        self._rollouts_every = config.tracking.rollouts_every
        self._dumps = config.rollouts.dump
        self._table = RolloutTable(folder.rollouts)
        self._dump = GroupDump(folder.path / "groups", DumpFacts(off_policy, config.batch.prompts_per_step))

    def step(self, result: StepResult, metrics: Mapping[str, float], decode: Callable[[Sequence[int]], str]) -> None:
        """Write all of a step; `decode` turns prompt tokens into text."""
        self.write(result.step, metrics)
        if self._rollouts_every and result.step % self._rollouts_every == 0:
            self._table.write(result.step, rollout_rows(result, decode))
        if self._dumps:
            self._dump.write(result.step, [credited.group for credited in result.groups])
