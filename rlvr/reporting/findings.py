"""What a person should look at in a run, as far as its metrics show it: what passed a guard's threshold, then notes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rlvr.config import RunConfig, SftConfig
from rlvr.guards import build_guards
from rlvr.reporting.curves import show_number, show_percent
from rlvr.reporting.page import Finding
from rlvr.reporting.run_metrics import RunMetrics, describe, tenths
from rlvr.tracking import names

NOTABLE_GAP = 0.1
"""Rise of the gap between a learned reward and its auditor, in score, from a run's first tenth to its last."""


def find(metrics: RunMetrics, config: RunConfig | SftConfig) -> Iterator[Finding]:
    """Yield the findings, the gravest first."""
    if isinstance(config, RunConfig):
        yield from _guard_findings(metrics, config)
    for name in metrics.names():
        null = [row.step for row in metrics.rows if name in row.values and row.values[name] is None]
        if null and name not in (names.LOSS, names.GRAD_NORM):  # Guards tell of these.
            yield Finding("watch", f"{name} was not a finite number in {len(null)} steps, last at step {null[-1]}.")
    done = metrics.rows[-1].step
    if done < config.num_steps:
        why = "the run goes on, was interrupted, or was ended by a guard or early_stop"
        yield Finding("note", f"{done} of {config.num_steps} steps are in the metrics: {why}.")
    if isinstance(config, RunConfig):
        yield from _audit_findings(metrics)
        yield from _accuracy_findings(metrics)


def _guard_findings(metrics: RunMetrics, config: RunConfig) -> Iterator[Finding]:
    for guard in build_guards(config.guards, compares_within_group=config.algorithm.compares_within_group):
        seen = [(row.step, row.values[guard.metric]) for row in metrics.rows if guard.metric in row.values]
        offences = [(step, shown) for step, value in seen if guard.offends(shown := math.nan if value is None else value)]
        if offences:
            step, value = offences[-1]
            where = f"at step {step}" if len(offences) == 1 else f"in {len(offences)} of {len(seen)} steps, last at step {step}"
            message = guard.message.format(value=value)
            yield Finding("watch", f"{message[0].upper()}{message[1:]} ({where}).")
    failed = sum(value for _, value in metrics.measured(names.DROPPED_FAILED))
    if failed:
        kept = len(metrics.measured(names.REWARD_MEAN)) * config.batch.prompts_per_step
        sampled = failed + kept + sum(value for _, value in metrics.measured(names.DROPPED_UNINFORMATIVE))
        limit = config.guards.max_failure_rate
        yield Finding(
            "watch" if failed / sampled > limit else "note",
            f"The verifier could not judge {failed:,.0f} groups, {show_percent(failed / sampled)} of all; they were dropped "
            f"(guards.max_failure_rate={limit:g}).",
        )


def _audit_findings(metrics: RunMetrics) -> Iterator[Finding]:
    gaps = metrics.measured(names.AUDIT_GAP)
    if not gaps:
        return
    first, last = tenths(gaps)
    if last - first > NOTABLE_GAP:
        rose = f"A learned reward stood {show_number(first)} above the auditor's score at first and {show_number(last)} at the end"
        before, now = tenths(metrics.measured(names.AUDIT))
        audited = f"the auditor's went from {show_number(before)} to {show_number(now)}"
        yield Finding("watch", f"{rose} ({names.AUDIT_GAP}; {audited}): the policy may be learning what that reward overlooks.")


def _accuracy_findings(metrics: RunMetrics) -> Iterator[Finding]:
    rewards = metrics.measured(names.REWARD_MEAN)
    first, last = tenths(rewards) if rewards else (0.0, 0.0)
    for name in (names.SAMPLED_ACCURACY, names.GREEDY_ACCURACY):
        measured = metrics.measured(name)
        if len(measured) < 2:
            continue
        label, before, now = describe(name).label, measured[0][1], measured[-1][1]
        best_step, best = max(measured, key=lambda pair: pair[1])
        if now < best:
            highest = f"was highest at step {best_step}, {show_percent(best)}, and ended at {show_percent(now)}"
            yield Finding("note", f"The accuracy {label} {highest}.")
        if last > first and now <= before:
            rose = f"The reward rose from {show_number(first)} to {show_number(last)}, the accuracy {label} did not"
            yield Finding("note", f"{rose} ({show_percent(before)} to {show_percent(now)}): read completions below.")
