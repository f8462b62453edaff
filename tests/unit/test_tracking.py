"""What a run writes: metrics that compare bit for bit, rollout tables that read back, trackers that are copies."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import pytest

from rlvr.errors import DataError, MissingExtra
from rlvr.tracking.metrics import MetricsLog, comparable_lines, read_metrics
from rlvr.tracking.names import METRICS
from rlvr.tracking.rollout_table import RolloutRow, RolloutTable
from rlvr.tracking.sinks import RunLabel, open_sinks

REPOSITORY = Path(__file__).resolve().parents[2]

ROW = RolloutRow(
    step=3,
    group_index=17,
    problem_id="train-5",
    prompt_text="2+2=",
    completion_text="<answer>4</answer> \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    num_tokens=5,
    finish_reason="stop",
    score=1.0,
    reward=0.9,
    advantage=-0.1 / 3,
    outcome="correct",
    extracted=None,
    explanation="",
    mean_logprob=-0.25,
    first_version=2,
    last_version=3,
)


def test_floats_come_back_exactly(tmp_path: Path) -> None:
    values = {"reward/mean": 0.1 + 0.2, "policy/loss": 1 / 3, "policy/learning_rate": 1e-300}
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(1, values)
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert row.step == 1 and row.values == values


def test_a_number_that_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write(1, {"policy/loss": math.nan, "policy/grad_norm": math.inf})
    assert json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "policy/loss": None,
        "policy/grad_norm": None,
    }


def test_a_row_is_on_disk_before_write_returns(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write(1, {"a": 1.0})
    assert len(read_metrics(tmp_path / "m.jsonl")) == 1
    log.close()


def test_two_runs_compare_equal_whatever_the_clock_said_and_in_whatever_order(tmp_path: Path) -> None:
    for name, values in (("a", {"x": 0.5, "y": 1.0, "time/step_seconds": 3.0}), ("b", {"time/step_seconds": 4.0, "y": 1.0, "x": 0.5})):
        with MetricsLog(tmp_path / name) as log:
            log.write(1, values)
    assert comparable_lines(tmp_path / "a") == comparable_lines(tmp_path / "b") == ['{"step": 1, "x": 0.5, "y": 1.0}']


def test_resuming_cuts_the_log_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsLog(path) as log:
        for step in range(1, 6):
            log.write(step, {"x": step / 7})
    before = path.read_text().splitlines(keepends=True)
    path.write_text(path.read_text() + '{"step": 6, "x"')  # the kill came in the middle of a line
    with MetricsLog(path, resume_step=3) as log:
        assert path.read_text() == "".join(before[:3])
        log.write(4, {"x": 4 / 7})
    assert path.read_text() == "".join(before[:4])


def test_a_step_is_written_once_and_in_order(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write(2, {})
        for step in (1, 2):
            with pytest.raises(ValueError, match="written once, in order"):
                log.write(step, {})


def test_a_damaged_line_within_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(DataError, match="m.jsonl, line 2"):
        read_metrics(tmp_path / "m.jsonl")


def test_rollouts_read_back_as_they_were_written(tmp_path: Path) -> None:
    table = RolloutTable(tmp_path / "rollouts")
    rows = [ROW, dataclasses.replace(ROW, extracted="4", completion_text="a\nb\x00")]
    path = table.write(3, rows)
    assert path.name == "step_000003.parquet"
    assert table.read(3) == rows
    assert [file.name for file in table.folder.iterdir()] == [path.name]  # nothing is left beside it


def test_what_utf8_cannot_hold_is_escaped(tmp_path: Path) -> None:
    table = RolloutTable(tmp_path)
    table.write(1, [dataclasses.replace(ROW, explanation="smile \ud83d", extracted="\udc00")])
    [row] = table.read(1)
    assert (row.explanation, row.extracted) == ("smile \\ud83d", "\\udc00")


def test_a_table_without_rows_is_still_a_table(tmp_path: Path) -> None:
    table = RolloutTable(tmp_path)
    table.write(1, [])
    assert table.read(1) == [] and table.steps() == [1]


def test_a_step_without_a_table_names_the_steps_there_are(tmp_path: Path) -> None:
    table = RolloutTable(tmp_path)
    for step in (1, 2, 3, 7):
        table.write(step, [ROW])
    with pytest.raises(DataError, match="no rollouts of step 5; there are steps 1-3, 7"):
        table.read(5)


def test_a_file_that_is_no_rollout_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "step_000001.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="step_000001.parquet: not a table of rollouts"):
        RolloutTable(tmp_path).read(1)


def test_tensorboard_gets_the_finite_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks(["tensorboard"], RunLabel(tmp_path, "rlvr", "run"))
    sink.write(1, {"reward/mean": 0.25, "policy/loss": None})
    sink.write(2, {"reward/mean": 0.5, "policy/loss": 1.0})
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(1, 0.25), (2, 0.5)]
    assert [event.step for event in events.Scalars("policy/loss")] == [2]


@pytest.mark.parametrize("name", [name for name in ("wandb", "mlflow", "trackio") if importlib.util.find_spec(name) is None])
def test_a_tracker_that_is_not_installed_names_its_extra(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingExtra, match=rf"tracker '{name}' needs the extra: pip install 'rlvr\[{name}\]'"):
        open_sinks(["tensorboard", name], RunLabel(tmp_path, "rlvr", "run"))


def test_every_metric_is_documented() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [metric.name for metric in METRICS if f"`{metric.name}`" not in page] == []
