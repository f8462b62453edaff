"""Copies of a run's metrics in other trackers. Each tracker is imported only in the class that adapts it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from rlvr.errors import MissingExtra

SinkName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Sink(Protocol):
    """Takes the numbers of each step."""

    def write(self, step: int, values: Mapping[str, float | None]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunLabel:
    """What a tracker calls the run: `settings` is the resolved configuration, `resume_step` the checkpoint's step of a resumed run."""

    folder: Path
    project: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    resume_step: int | None = None


class TensorBoardSink:
    """Event files in the run's `tensorboard/`; view them with `tensorboard --logdir RUN`."""

    def __init__(self, label: RunLabel) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", error) from error
        purge = None if label.resume_step is None else label.resume_step + 1
        self._writer = SummaryWriter(log_dir=str(label.folder / "tensorboard"), purge_step=purge)

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        for name, value in _present(values).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """A Weights & Biases run whose id is the run folder's name, so that a resumed run goes on in the same place."""

    def __init__(self, label: RunLabel) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", error) from error
        self._run = wandb.init(
            project=label.project, name=label.name, id=label.name, dir=str(label.folder), config=dict(label.settings), resume="allow"
        )

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        self._run.log(_present(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowSink:
    """An MLflow run under the experiment `project`; the tracking server is MLFLOW_TRACKING_URI's."""

    def __init__(self, label: RunLabel) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise _missing("mlflow", error) from error
        self._mlflow = mlflow
        mlflow.set_experiment(label.project)
        mlflow.start_run(run_name=label.name)
        mlflow.log_dict(dict(label.settings), "config.json")

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        self._mlflow.log_metrics(_present(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class TrackioSink:
    """A trackio run, kept on this machine; view it with `trackio show`."""

    def __init__(self, label: RunLabel) -> None:
        try:
            import trackio
        except ImportError as error:
            raise _missing("trackio", error) from error
        self._run = trackio.init(project=label.project, name=label.name, config=dict(label.settings), resume="allow")

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        self._run.log(_present(values), step=step)

    def close(self) -> None:
        self._run.finish()


_SINKS: dict[SinkName, type[TensorBoardSink] | type[WandbSink] | type[MlflowSink] | type[TrackioSink]] = {
    "tensorboard": TensorBoardSink,
    "wandb": WandbSink,
    "mlflow": MlflowSink,
    "trackio": TrackioSink,
}


def check_sinks(names: Sequence[SinkName]) -> None:
    """Look for the named trackers without opening them, before anything costs time.

    Raises: MissingExtra: one is not installed.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # A mere folder of that name, such as the one wandb writes to, has no origin.
            raise _missing(name, ImportError(f"No module named '{name}'"))


def open_sinks(names: Sequence[SinkName], label: RunLabel) -> list[Sink]:
    """Open the named trackers.

    Raises: MissingExtra: a tracker is not installed; those already open are closed.
    """
    opened: list[Sink] = []
    try:
        for name in names:
            opened.append(_SINKS[name](label))
    except MissingExtra:
        for sink in opened:
            sink.close()
        raise
    return opened


def _present(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _missing(name: SinkName, error: ImportError) -> MissingExtra:
    return MissingExtra(f"tracker '{name}' needs the extra: pip install 'rlvr[{name}]' ({error}); or leave it out of tracking.sinks")
