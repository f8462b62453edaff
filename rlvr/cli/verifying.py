"""`rlvr verify`: scores existing responses, or checks the gold answers of a data set; needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import app

SOME_NOT_JUDGED = 3
GOLD_VERIFIER = "math"


@app.command(rich_help_panel="Judge")
def verify(
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT.jsonl", help="One JSON object a line: id, response, reference, messages.", show_default=False),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="The verifier's own options; with --validate also data.… as in a run's settings.",
            show_default=False,
        ),
    ] = None,
    verifier: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"A registered name or package.module:name; see `rlvr list verifiers`. With --validate {GOLD_VERIFIER} by default.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.jsonl",
            help="The same objects in the same order, each with a verdict or an error. With --validate, and optional there: "
            "the rows that cannot earn the reward, in full.",
            show_default=False,
        ),
    ] = None,
    validate: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Instead of INPUT.jsonl: judge every gold answer of a .jsonl, .json or .parquet file or a Hugging Face dataset.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[int, typer.Option(min=0, metavar="N", help="With --validate: how many rows are printed.")] = 20,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds after which a line counts as not judged.")] = 60.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Lines being judged at once.")] = 32,
) -> None:
    """Score existing responses with a verifier, or check that gold answers can earn the reward.

    Exit status: 0 when every line was judged, 3 when some could not be (they carry "error"), 2 for bad usage or unreadable input.
    With --validate: 0 when every gold answer earns the reward, 3 when some cannot.

    A line may also have "finish_reason" (stop, length or aborted; stop if absent) and "num_tokens" (the number of words if absent).

    --validate writes each gold answer as a response, in the forms in which answers come (boxed, in <answer> tags, after ####, …), and
    lists the rows where the verifier accepts none of them. Fields are found under their usual names (question, problem or prompt;
    answer), or named by data.fields.question=… and the like.

    [bold]Examples[/bold]

    rlvr verify answers.jsonl --verifier numeric --output scored.jsonl

    rlvr verify answers.jsonl --verifier exact_match --output scored.jsonl ignore_case=true

    rlvr verify --validate train.jsonl --verifier math

    rlvr verify --validate openai/gsm8k --verifier numeric data.subset=main 'data.answer_pattern=####\\s*(.+)'
    """
    from rlvr.errors import ConfigError

    if validate is not None:
        arguments = [argument for argument in (source, *(options or [])) if argument is not None]
        _validate(validate, verifier or GOLD_VERIFIER, arguments, output, show, timeout, concurrency)
        return
    if source is None or verifier is None or output is None:
        needed = {"INPUT.jsonl": source, "--verifier NAME": verifier, "--output OUT.jsonl": output}
        missing = ", ".join(name for name, value in needed.items() if value is None)
        raise ConfigError(f"missing {missing}; write rlvr verify {' '.join(needed)}, or rlvr verify --validate DATASET")
    _score(Path(source), verifier, options or [], output, timeout, concurrency)


def _score(source: Path, verifier: str, options: list[str], output: Path, timeout: float, concurrency: int) -> None:
    from rlvr.config_files import read_options
    from rlvr.tracking.progress import open_progress
    from rlvr.verify_file import VerifyJob, verify_file

    job = VerifyJob(verifier, read_options(options), timeout_seconds=timeout, concurrency=concurrency)
    with open_progress(f"verify {source}") as progress:
        tally = verify_file(source, output, job, progress)
    typer.echo(tally.describe(output), err=True)
    if tally.num_errors:
        raise typer.Exit(SOME_NOT_JUDGED)


def _validate(dataset: str, verifier: str, arguments: list[str], output: Path | None, show: int, timeout: float, concurrency: int) -> None:
    from rlvr.cli.judged_tables import print_rejected
    from rlvr.config_files import read_options
    from rlvr.tracking.progress import open_progress
    from rlvr.validate import DATA_PREFIX, data_settings, validate_gold, write_rejected
    from rlvr.verify_file import VerifyJob

    options = read_options([argument for argument in arguments if not argument.startswith(DATA_PREFIX)])
    job = VerifyJob(verifier, options, timeout_seconds=timeout, concurrency=concurrency)
    job.judge()  # A misspelt verifier is told before the data is read.
    config, notes = data_settings(dataset, [argument for argument in arguments if argument.startswith(DATA_PREFIX)])
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    with open_progress(f"validate {dataset}") as progress:
        validation = validate_gold(config, job, progress)
    print_rejected(validation.rejected, show)
    if output is not None:
        write_rejected(validation, output)
    typer.echo(validation.describe(dataset, verifier), err=True)
    if validation.rejected:
        raise typer.Exit(SOME_NOT_JUDGED)
