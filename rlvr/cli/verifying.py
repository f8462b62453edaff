"""`rlvr verify`: scores existing responses, one JSON object a line; needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import app

SOME_NOT_JUDGED = 3


@app.command(rich_help_panel="Judge")
def verify(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT.jsonl", help="One JSON object a line: id, response, reference, messages.", show_default=False)
    ],
    verifier: Annotated[str, typer.Option(metavar="NAME", help="A registered name or package.module:name; see `rlvr list verifiers`.")],
    output: Annotated[Path, typer.Option(metavar="OUT.jsonl", help="The same objects in the same order, each with a verdict or an error.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The verifier's own options.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds after which a line counts as not judged.")] = 60.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Lines being judged at once.")] = 32,
) -> None:
    """Score existing responses with a verifier.

    Exit status: 0 when every line was judged, 3 when some could not be (they carry "error"), 2 for bad usage or unreadable input.

    A line may also have "finish_reason" (stop, length or aborted; stop if absent) and "num_tokens" (the number of words if absent).

    [bold]Examples[/bold]

    rlvr verify answers.jsonl --verifier numeric --output scored.jsonl

    rlvr verify answers.jsonl --verifier exact_match --output scored.jsonl ignore_case=true
    """
    from rlvr.config_files import read_options
    from rlvr.tracking.progress import open_progress
    from rlvr.verify_file import VerifyJob, verify_file

    job = VerifyJob(verifier, read_options(options or []), timeout_seconds=timeout, concurrency=concurrency)
    with open_progress(f"verify {source}") as progress:
        tally = verify_file(source, output, job, progress)
    typer.echo(tally.describe(output), err=True)
    if tally.num_errors:
        raise typer.Exit(SOME_NOT_JUDGED)
