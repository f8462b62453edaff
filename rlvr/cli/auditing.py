"""`rlvr audit`: measures a verifier against labelled answers; needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import app
from rlvr.cli.verifying import SOME_NOT_JUDGED


@app.command(rich_help_panel="Judge")
def audit(
    verifier: Annotated[
        str,
        typer.Argument(metavar="VERIFIER", help="A registered name or package.module:name; see `rlvr list verifiers`.", show_default=False),
    ],
    labelled: Annotated[
        Path,
        typer.Option(
            metavar="FILE.jsonl",
            help="One JSON object a line: gold (or reference), response (or a bare answer), label (true, false, null), other fields.",
            show_default=False,
        ),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The verifier's own options.", show_default=False)
    ] = None,
    by: Annotated[str, typer.Option(metavar="FIELD", help="The field that groups the rows of the table.")] = "kind",
    show: Annotated[int, typer.Option(min=0, metavar="N", help="How many of the rows that disagree are printed.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option(metavar="OUT.jsonl", help="All rows that disagree or could not be judged, in full.", show_default=False),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--json", metavar="FILE.json", help="The numbers, for programs.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds after which a row counts as not judged.")] = 60.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Rows being judged at once; with more than 1 latencies hold waiting.")] = 1,
) -> None:
    """Measure a verifier: its accuracy, false positives, false negatives and latency on answers that are labelled.

    Prints a table by kind, the rows where verdict and label disagree, and the latency of single checks. False positives are the share
    of the wrong answers that are accepted, false negatives the share of the right ones that are not; brackets hold 95 % Wilson
    intervals. A row that could not be judged counts as not right. docs/auditing.md says how to make a labelled file.

    A line: {"gold": "1/2", "answer": "0.5", "label": true, "kind": "fraction"}

    Exit status: 0 when every row was judged, whatever the result; 3 when some could not be; 2 for bad usage or an unreadable line.

    [bold]Examples[/bold]

    rlvr audit math --labelled labelled.jsonl

    rlvr audit numeric --labelled labelled.jsonl --by source --output disagreements.jsonl tolerance=0.01

    rlvr audit my_verifier:Judge --labelled labelled.jsonl --concurrency 8 --json audit.json
    """
    from rlvr.audit import audit_verifier, write_disagreements, write_summary
    from rlvr.cli.judged_tables import print_audit
    from rlvr.config_files import read_options
    from rlvr.labelled import read_labelled
    from rlvr.tracking.progress import open_progress
    from rlvr.verify_file import VerifyJob

    job = VerifyJob(verifier, read_options(options or []), timeout_seconds=timeout, concurrency=concurrency)
    rows = read_labelled(labelled, by)
    with open_progress(f"audit {verifier}") as progress:
        result = audit_verifier(rows, job, progress)
    print_audit(result, by=by, show=show, concurrency=concurrency)
    if output is not None:
        write_disagreements(result, output)
    if summary is not None:
        write_summary(result, summary, job=job, source=labelled, by=by)
    if result.num_errors:
        raise typer.Exit(SOME_NOT_JUDGED)
