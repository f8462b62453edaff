"""Tables of what a verifier did: gold answers it rejects, and how it agrees with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from rlvr.cli.listing import new_console, new_table

if TYPE_CHECKING:
    from rlvr.audit import Audit, Check, Scores
    from rlvr.statistics import Share
    from rlvr.validate import Rejected

GOLD_CHARACTERS, WHY_CHARACTERS = 60, 160


def print_rejected(rejected: Sequence[Rejected], show: int) -> None:
    """Print the first rows whose gold answer cannot earn the reward, shortened, and how many there are beside."""
    console = new_console()
    if rejected and show:
        table = new_table("row", "id", "gold", "outcome", "why")
        for row in rejected[:show]:
            # An id that only repeats the row number says nothing.
            name = "" if row.id is None or row.id == str(row.row) else row.id
            cells = (str(row.row), shorten(name, 40), shorten(row.gold or "", GOLD_CHARACTERS), row.outcome)
            table.add_row(*map(Text, (*cells, _reason(row.explanation, row.id or ""))))
        console.print(table)
    if len(rejected) > show:
        console.print(f"… and {len(rejected) - show} more: --show {len(rejected)} prints all, --output FILE.jsonl writes them")


def print_audit(audit: Audit, *, by: str, show: int, concurrency: int) -> None:
    """Print the scores by group and in total, the first rows that disagree, and the latencies."""
    console = new_console()
    table = new_table(by, "n", "accuracy %", "false positives %", "false negatives %", "not judged", "unparseable")
    for name, scores in audit.groups.items():
        table.add_row(*map(Text, _score_cells(shorten(name, 40), scores)))
    table.add_row(*map(Text, _score_cells("total", audit.total)), style="bold")
    console.print(table)
    console.print("\n[dim]in brackets: 95 % Wilson intervals[/dim]")
    if audit.num_undecided:
        console.print(f"not scored: {audit.num_undecided} rows whose label is null, {audit.num_undecided_accepted} of them accepted")
    if audit.disagreements:
        _print_disagreements(audit.disagreements, by, show)
    latency = audit.latency
    waiting = "" if concurrency == 1 else f", with {concurrency} at once: waiting is part of it (--concurrency 1 measures single checks)"
    figures = "  ".join(
        f"{name} {seconds * 1000:.3g}" for name, seconds in (("p50", latency.p50), ("p99", latency.p99), ("max", latency.longest))
    )
    console.print(f"\nlatency per check in ms: {figures}  (the first, with what is loaded for it, {latency.first * 1000:.3g}){waiting}")


def shorten(text: str, limit: int) -> str:
    """Return text on one line, of at most `limit` characters, without anything that a terminal would act on or could not encode."""
    line = " ".join(text[: 4 * limit].split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def _score_cells(name: str, scores: Scores) -> tuple[str, ...]:
    return (
        name,
        str(scores.accuracy.total),
        _share(scores.accuracy),
        _share(scores.false_positives),
        _share(scores.false_negatives),
        str(scores.num_errors),
        str(scores.outcomes.get("unparseable", 0)),
    )


def _share(share: Share) -> str:
    """Write a share in per cent with its interval; false positives and negatives are few, so they need their counts."""
    if share.value is None:
        return "–"
    interval = share.interval()
    return f"{_per_cent(share.value)} [{_per_cent(interval.low)}, {_per_cent(interval.high)}] {share.count}/{share.total}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".")


def _reason(text: str, problem_id: str) -> str:
    """Return an explanation or error without the problem's name, which stands in its own column."""
    return shorten(text.removeprefix(f"problem {problem_id!r}: "), WHY_CHARACTERS)


def _print_disagreements(disagreements: Sequence[Check], by: str, show: int) -> None:
    console = new_console()
    console.print(f"\n{len(disagreements)} rows disagree with their label or could not be judged")
    if show:
        table = new_table("id", by, "gold", "extracted", "label", "outcome", "why")
        for check in disagreements[:show]:
            verdict = check.verdict
            label = "null" if check.row.label is None else str(check.row.label).lower()
            table.add_row(
                Text(shorten(check.row.problem.id, 40)),
                Text(shorten(check.row.group, 20)),
                Text(shorten(check.row.gold, GOLD_CHARACTERS)),
                Text(shorten((verdict.extracted or "") if verdict else "", GOLD_CHARACTERS)),
                Text(label),
                Text(verdict.outcome if verdict else "error"),
                Text(_reason(verdict.explanation if verdict else check.error, check.row.problem.id)),
            )
        console.print(table)
    if len(disagreements) > show:
        console.print(f"… and {len(disagreements) - show} more: --show {len(disagreements)} prints all, --output FILE.jsonl writes them")
