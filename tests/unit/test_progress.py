"""The display: one line a step in a log, a panel on a terminal, and a remaining time that one slow step does not disturb."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rlvr.tracking.progress import (
    LineProgress,
    LiveProgress,
    RemainingTime,
    StepReport,
    format_seconds,
    open_progress,
    shown_metrics,
    sparkline,
)

METRICS = {"policy/entropy": 0.3125, "reward/mean": 0.5, "accuracy/train": 0.425, "time/tokens_per_second": 9876.5, "policy/loss": 0.1}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(console: Console) -> list[str]:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=40)


def terminal_console() -> Console:
    return Console(file=io.StringIO(), width=120, height=40, force_terminal=True, color_system=None, legacy_windows=False)


def test_a_log_gets_one_line_a_step_however_narrow() -> None:
    clock, console = Clock(), plain_console()
    progress = LineProgress(console, clock=clock)
    clock.now += 2
    progress.step(StepReport(1, 3, METRICS))
    # 2 s a step, 2 steps left: 4 s.
    assert lines(console) == ["step 1/3  reward 0.5  accuracy 42.5%  entropy 0.312  tok/s 9876  4.0 s left"]


def test_one_slow_step_does_not_disturb_the_remaining_time() -> None:
    clock = Clock()
    remaining = RemainingTime(clock)
    for seconds in (2, 2, 60, 2):
        clock.now += seconds
        left = remaining.update(StepReport(10, 20, {}))
    assert left == 20  # the median step takes 2 s


def test_start_up_and_evaluation_do_not_count_as_steps() -> None:
    clock = Clock()
    remaining = RemainingTime(clock)
    clock.now += 100
    assert remaining.update(StepReport(1, 11, {"time/step_seconds": 3.0})) == 30


def test_a_long_phase_reports_every_ten_seconds_with_what_is_left() -> None:
    clock, console = Clock(), plain_console()
    with LineProgress(console, clock=clock).phase("held-out evaluation", total=100) as advance:
        for _ in range(4):
            clock.now += 6
            advance(10)
    assert lines(console) == [
        "held-out evaluation: 20 of 100, 48 s left",  # after 12 s; 20 of 100 done, so 80 more take 48 s
        "held-out evaluation: 40 of 100, 36 s left",  # after 24 s
        "held-out evaluation: 40 in 24 s",
    ]


def test_a_phase_of_unknown_length_says_when_it_is_done() -> None:
    clock, console = Clock(), plain_console()
    with LineProgress(console, clock=clock).phase("loading the model"):
        clock.now += 75
    assert lines(console) == ["loading the model: done in 1:15"]


def test_warnings_and_markup_appear_as_they_are() -> None:
    console = plain_console()
    progress = LineProgress(console)
    progress.warn("[bold] is no markup")
    progress.note("x")
    assert lines(console) == ["warning: [bold] is no markup", "x"]


def test_a_terminal_gets_curves_numbers_phases_and_warnings() -> None:
    console = terminal_console()
    with LiveProgress(console, "grpo [1]") as progress:
        for step, reward in enumerate((0.0, 0.5, 1.0), start=1):
            progress.step(StepReport(step, 30, METRICS | {"reward/mean": reward}))
        progress.warn("the entropy fell")
        with progress.phase("held-out [evaluation]", total=10) as advance:
            advance(4)
            progress._live.refresh()
    text = "\n".join(lines(console))
    for part in ("grpo [1]", "step 3/30", "▁▅█", "accuracy", "42.5%", "warning: the entropy fell", "held-out [evaluation]", "4/10"):
        assert part in text, part


def test_the_display_depends_on_where_it_goes() -> None:
    assert isinstance(open_progress("x", console=terminal_console()), LiveProgress)
    assert isinstance(open_progress("x", console=plain_console()), LineProgress)


def test_a_supervised_step_shows_its_loss() -> None:
    assert shown_metrics({"supervised/loss": 1.25, "supervised/tokens": 1000.0}) == [("loss", "1.25")]


def test_a_number_that_is_not_finite_is_said_so() -> None:
    assert shown_metrics({"policy/grad_norm": None}) == [("grad norm", "not finite")]


@pytest.mark.parametrize(
    ("values", "curve"),
    [([], ""), ([0.5], "▁"), ([0.0, 1.0], "▁█"), ([1.0, 0.0, 0.5], "█▁▅"), ([0.0] * 3, "▁▁▁")],  # 0.5 of 7 blocks rounds to the 5th
)
def test_a_sparkline_spans_low_to_high(values: list[float], curve: str) -> None:
    assert sparkline(values) == curve


def test_a_long_sparkline_keeps_its_width() -> None:
    assert len(sparkline([float(value) for value in range(1001)], width=40)) == 40


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (12.4, "12 s"), (185, "3:05"), (7385, "2:03:05")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
