"""What a person sees of a long run: a live panel on a terminal, one line a step otherwise. Never what a program reads.

Both forms take the same calls, so training, supervised warm-up, evaluation and `rlvr verify` do not know which one is shown.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from rlvr.tracking.names import ACCURACY, METRICS, REWARD_MEAN, STEP_SECONDS, SUPERVISED_LOSS

Clock = Callable[[], float]
Advance = Callable[[int], None]

CURVES = (REWARD_MEAN, ACCURACY, SUPERVISED_LOSS)
SHARES = frozenset(metric.name for metric in METRICS if metric.unit == "share")
BLOCKS = "▁▂▃▄▅▆▇█"
SECONDS_BETWEEN_LINES = 10.0
MESSAGES_SHOWN = 4
STEPS_FOR_RATE = 20


@dataclass(frozen=True, slots=True)
class StepReport:
    """One finished step: its number from 1, of how many, and its metrics under the names of `rlvr.tracking.names`."""

    step: int
    num_steps: int
    metrics: Mapping[str, float | None]


class Progress(Protocol):
    """Takes what happened; every method may be called from any thread."""

    def phase(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Show a long phase with progress and remaining time while the block runs; call what it yields with the number newly done."""
        ...

    def step(self, report: StepReport) -> None: ...

    def warn(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


class RemainingTime:
    """Estimates the time left from the median of the last steps, so that one slow step does not disturb it.

    A step's time is what its metrics say; without that, the time since the step before, which for the first holds the start-up as well.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._seconds: deque[float] = deque(maxlen=STEPS_FOR_RATE)

    def update(self, report: StepReport) -> float:
        """Note that a step ended; return the seconds that the remaining ones will take."""
        now = self._clock()
        reported = report.metrics.get(STEP_SECONDS)
        self._seconds.append(now - self._last if reported is None else reported)
        self._last = now
        return statistics.median(self._seconds) * (report.num_steps - report.step)


class LineProgress:
    """One line a step and, in long phases, a line every ten seconds: for logs and pipes."""

    def __init__(self, console: Console, *, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._remaining = RemainingTime(clock)

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        start = last = self._clock()
        done = 0
        lock = threading.Lock()

        def advance(count: int = 1) -> None:
            nonlocal done, last
            with lock:
                done += count
                now = self._clock()
                if now - last < SECONDS_BETWEEN_LINES:
                    return
                last = now
                of = f" of {total}" if total else ""
                left = f", {format_seconds((now - start) / done * (total - done))} left" if total and done else ""
                self._print(f"{name}: {done}{of}{left}")

        yield advance
        self._print(f"{name}: {done or 'done'} in {format_seconds(self._clock() - start)}")

    def step(self, report: StepReport) -> None:
        left = self._remaining.update(report)
        shown = [f"{label} {text}" for label, text in shown_metrics(report.metrics)]
        self._print("  ".join([f"step {report.step}/{report.num_steps}", *shown, f"{format_seconds(left)} left"]))

    def warn(self, text: str) -> None:
        self._print(f"warning: {text}")

    def note(self, text: str) -> None:
        self._print(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A panel that stays in place: curves, the latest numbers, running phases, remaining time, the last warnings."""

    def __init__(self, console: Console, title: str, *, clock: Clock = time.monotonic) -> None:
        self._title = title
        self._remaining = RemainingTime(clock)
        self._report: StepReport | None = None
        self._seconds_left = 0.0
        self._curves: dict[str, list[float]] = {}
        self._messages: deque[Text] = deque(maxlen=MESSAGES_SHOWN)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, vertical_overflow="visible")

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        task = self._bars.add_task(escape(name), total=total)
        try:
            yield lambda count=1: self._bars.advance(task, count)
        finally:
            self._bars.remove_task(task)

    def step(self, report: StepReport) -> None:
        self._seconds_left = self._remaining.update(report)
        self._report = report
        for name in CURVES:
            if (value := report.metrics.get(name)) is not None:
                self._curves.setdefault(name, []).append(value)

    def warn(self, text: str) -> None:
        self._messages.append(Text(f"warning: {text}", style="yellow"))

    def note(self, text: str) -> None:
        self._messages.append(Text(text))

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._report is not None:
            done = f"step {self._report.step}/{self._report.num_steps}, {format_seconds(self._seconds_left)} left"
            parts.append(Text(done, style="bold"))
            curves = Table.grid(padding=(0, 2))
            for name, values in self._curves.items():
                curves.add_row(_label(name), Text(sparkline(values), style="cyan"), _format(name, values[-1]))
            parts.append(curves)
            numbers = Table.grid(padding=(0, 2))
            pairs = [Text.assemble((f"{label} ", "dim"), text) for label, text in shown_metrics(self._report.metrics)]
            for begin in range(0, len(pairs), 4):
                numbers.add_row(*pairs[begin : begin + 4])
            parts.append(numbers)
        if self._bars.tasks:
            parts.append(self._bars.get_renderable())
        parts.extend(self._messages)
        return Panel(Group(*(parts or [Text("starting …")])), title=escape(self._title), title_align="left")


class SilentProgress(LineProgress):
    """For ranks beside the main one, which shows the run: says only what should be looked at, and who says it."""

    def __init__(self, console: Console, rank: int) -> None:
        super().__init__(console)
        self._rank = rank

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Advance]:
        yield lambda count=1: None

    def step(self, report: StepReport) -> None:
        return None

    def warn(self, text: str) -> None:
        self._print(f"rank {self._rank}: warning: {text}")

    def note(self, text: str) -> None:
        return None


def open_progress(title: str, *, console: Console | None = None, rank: int = 0) -> LineProgress | LiveProgress:
    """Return the panel on a terminal and lines otherwise, next to nothing where `rank` is not the main one; a context manager each."""
    if rank:
        return SilentProgress(console or Console(file=sys.stderr), rank)
    console = console if console is not None else Console(file=sys.stderr)
    return LiveProgress(console, title) if console.is_terminal and not console.is_dumb_terminal else LineProgress(console)


def sparkline(values: list[float], width: int = 40) -> str:
    """Draw values as a curve of at most `width` characters, each the mean of its share of the values, low to high over their range."""
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [len(values) * column // columns for column in range(columns + 1)]
    means = [statistics.fmean(values[begin:end]) for begin, end in zip(edges[:-1], edges[1:], strict=True)]
    low, high = min(means), max(means)
    if high == low:
        return BLOCKS[0] * columns
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] for mean in means)


def shown_metrics(metrics: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Return label and value of the metrics that have a label, in the order of the documented table."""
    return [(metric.label, _format(metric.name, metrics[metric.name])) for metric in METRICS if metric.label and metric.name in metrics]


def format_seconds(seconds: float) -> str:
    """Write a duration as people say it: 0.4 s, 12 s, 3:05, 2:03:05."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _label(name: str) -> str:
    return next((metric.label for metric in METRICS if metric.name == name and metric.label), name)


def _format(name: str, value: float | None) -> str:
    if value is None:
        return "not finite"
    if name in SHARES:
        return f"{value:.1%}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
