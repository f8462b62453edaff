"""What a report says of a run: headline, findings, curves, benchmarks by step, completions, settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter

from rlvr.config import RunConfig, SftConfig
from rlvr.errors import ConfigError, DataError
from rlvr.evaluation.scores import AVERAGE
from rlvr.reporting.curves import Figure, Point, draw_figure, show_number, show_percent
from rlvr.reporting.evaluation_page import EXPLANATION, Series, read_series, series_part, title_of
from rlvr.reporting.findings import find
from rlvr.reporting.page import Fact, Page, Part, Table
from rlvr.reporting.run_metrics import ACCURACIES, RunMetrics, describe, tenths
from rlvr.reporting.samples import rollout_parts
from rlvr.run_folder import read_run_config
from rlvr.tracking import names
from rlvr.tracking.rollout_table import RolloutTable

CHARTS = {
    "Reward and accuracy": (
        names.REWARD_MEAN,
        names.ACCURACY,
        *ACCURACIES,
        names.AUDIT,
        names.AUDIT_GAP,
        names.ZERO_VARIANCE_SHARE,
        names.UNPARSEABLE_SHARE,
    ),
    "Length": (names.MEAN_TOKENS, names.TRUNCATED_SHARE, names.HELD_OUT_TOKENS, names.HELD_OUT_TRUNCATED),
    "Policy": (
        *(names.SUPERVISED_LOSS, names.LOSS, names.ENTROPY, names.APPROX_KL, names.REFERENCE_KL, names.GRAD_NORM, names.CLIP_SHARE),
        *(names.RATIO_MAX, names.LOGPROB_DRIFT, names.LEARNING_RATE),
    ),
    "Time": (names.STEP_SECONDS, names.ROLLOUT_SECONDS, names.UPDATE_SECONDS, names.TOKENS_PER_SECOND),
}
"""The main metrics by the question they answer; whatever else a run reports is folded below."""
MAX_OTHER_FIGURES = 40


def run_page(folder: Path) -> Page:
    """Read all that a run wrote.

    Raises: DataError: a file of it is malformed.
    """
    config = read_settings(folder / "config.yaml")
    metrics = RunMetrics.read(folder / "metrics.jsonl", config)
    benchmarks, unread = read_series(folder / "eval")
    parts = [
        *_chart_parts(metrics, has_benchmarks=bool(benchmarks)),
        *([Part("Benchmarks", EXPLANATION)] if benchmarks else []),
        *(series_part(series, folder) for series in benchmarks),
        *([Part("Evaluations that cannot be read", text="\n".join(unread))] if unread else []),
        *(rollout_parts(RolloutTable(folder / "rollouts")) if isinstance(config, RunConfig) else ()),
        Part("Settings that differ from the defaults", table=Table(("setting", "value", "default"), list(changed_settings(config)), 3)),
        Part("All settings", text=(folder / "config.yaml").read_text(encoding="utf-8"), is_folded=True),
    ]
    findings = list(find(metrics, config)) if metrics.rows else None
    headline = list(_headline(metrics, benchmarks, config))
    return Page("run", folder.resolve().name, list(_facts(config)), parts, headline, findings)


def read_settings(path: Path) -> RunConfig | SftConfig:
    """Raises: DataError: they are not those of a run."""
    try:
        return read_run_config(path)
    except ConfigError as error:
        raise DataError(f"{path}: not the settings of a run that this rlvr can read: {error}") from error


def changed_settings(config: BaseModel, default: BaseModel | None = None, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, value and default of every setting that is not at its default, and of those that have none.

    Where a name selects a class of settings, the defaults are that class's; the name then stands for the group.
    """
    for name, info in type(config).model_fields.items():
        value, path = getattr(config, name), prefix + name
        given = getattr(default, name) if default is not None else info.get_default(call_default_factory=True)
        is_group = isinstance(value, BaseModel)
        is_same_class = type(given) is type(value)
        is_required = default is None and info.is_required()
        if value != given and not (is_group and (is_same_class or is_required)):
            yield path, _setting_text(value), "required" if is_required else _setting_text(given)
        if is_group:
            yield from changed_settings(value, given if is_same_class else None, path + ".")


def _facts(config: RunConfig | SftConfig) -> Iterator[Fact]:
    if isinstance(config, RunConfig):
        yield Fact("algorithm", config.algorithm.name, f"{config.algorithm.advantage}, {config.algorithm.loss}")
    else:
        yield Fact("algorithm", "supervised training")
    yield Fact("model", config.model.path, config.model.revision or "")
    yield Fact("data", " ".join(filter(None, (config.data.path, config.data.subset, config.data.split))), config.data.revision or "")
    if isinstance(config, SftConfig):
        yield Fact("a step", f"{config.samples_per_step} samples")
        return
    yield Fact("verifier", config.verifier.name)
    yield Fact("engine", config.engine.name)
    batch = config.batch
    yield Fact("a step", f"{batch.prompts_per_step} prompts × {batch.group_size}", f"up to {config.sampling.max_new_tokens} tokens")


def _headline(metrics: RunMetrics, benchmarks: Sequence[Series], config: RunConfig | SftConfig) -> Iterator[Fact]:
    """Yield the accuracies from first to last, or where there are none the reward or loss, then the extent of the run."""
    courses = {f"accuracy {describe(name).label}": metrics.points(name) for name in ACCURACIES}
    accuracies = [_course(label, [point for point in points if point.y is not None]) for label, points in courses.items()]
    accuracies += [_course(title_of(series.benchmark), series.points(AVERAGE)) for series in benchmarks]
    yield from (fact for fact in accuracies if fact is not None)
    for name in (names.REWARD_MEAN, names.SUPERVISED_LOSS):
        values = metrics.measured(name)
        if values and not any(accuracies):
            first, last = tenths(values)
            yield Fact(str(describe(name).label), f"{show_number(first)} → {show_number(last)}", "means of the first and last tenth")
    if metrics.rows:
        seconds = sum(value for _, value in metrics.measured(names.STEP_SECONDS))
        yield Fact("steps", f"{metrics.rows[-1].step:,} of {config.num_steps:,}", f"{timedelta(seconds=round(seconds))} in steps")


def _course(label: str, points: Sequence[Point]) -> Fact | None:
    if not points:
        return None
    ends = [points[0], points[-1]] if len(points) > 1 else points
    note = " to ".join(f"{point.x:,.0f}" for point in ends)
    intervals = [f"{show_percent(p.low)} to {show_percent(p.high)}" for p in ends if p.low is not None and p.high is not None]
    note = f"step{'s' if len(ends) > 1 else ''} {note}" + (f"; 95 %: {' → '.join(intervals)}" if len(intervals) == len(ends) else "")
    return Fact(label, " → ".join(show_percent(point.y) for point in ends if point.y is not None), note)


def _chart_parts(metrics: RunMetrics, *, has_benchmarks: bool) -> Iterator[Part]:
    """Yield the curves. What benchmarks measured has tables and curves of its own, with intervals."""
    there = [name for name in metrics.names() if not (has_benchmarks and name.startswith(names.EVALUATION_PREFIX))]
    if not there:
        yield Part("Metrics", "The run has no metrics yet: metrics.jsonl is written after the first step.")
    for title, wanted in CHARTS.items():
        if figures := [_figure(metrics, name) for name in wanted if name in there]:
            yield Part(title, figures=figures)
    main = {name for wanted in CHARTS.values() for name in wanted}
    others = [name for name in there if name not in main and not name.endswith("/num_problems")]
    if others:
        left_out = f"{len(others) - MAX_OTHER_FIGURES} more are in metrics.jsonl." if len(others) > MAX_OTHER_FIGURES else ""
        yield Part("Other metrics", left_out, figures=[_figure(metrics, name) for name in others[:MAX_OTHER_FIGURES]], is_folded=True)


def _figure(metrics: RunMetrics, name: str) -> Figure:
    metric = describe(name)
    is_share = metric.unit == "share" or name.endswith("_share")
    title = metric.label or name
    unit = "" if is_share or metric.unit == title else metric.unit
    return draw_figure(
        metrics.points(name), title=title, name=name, unit=unit, meaning=metric.meaning, show=show_percent if is_share else show_number
    )


def _setting_text(value: Any) -> str:
    """Return a value as YAML, and a group of settings as its name."""
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    if isinstance(value, BaseModel):
        plain = plain.get("name", "settings")
    return yaml.safe_dump(plain, sort_keys=False, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
