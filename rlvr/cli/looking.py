"""`rlvr show`, `rlvr list` and `rlvr doctor`: they look at runs, names and the machine, and change nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import FAILED, app
from rlvr.cli.training import Overrides, read_run

Kind = StrEnum("Kind", "verifiers suites algorithms advantages losses engines environments sandboxes settings recipes")
Order = StrEnum("Order", "group score reward advantage length")


@app.command(rich_help_panel="Look")
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    step: Annotated[int | None, typer.Option(help="The training step; by default the last one saved.", show_default=False)] = None,
    problem: Annotated[str | None, typer.Option(metavar="ID", help="Only this problem.", show_default=False)] = None,
    sort: Annotated[Order, typer.Option(help="Order of the completions; all but `group` run from low to high.")] = Order.group,
    limit: Annotated[int, typer.Option(min=1, help="How many completions are shown.")] = 16,
) -> None:
    """Print prompts, completions and verdicts of one training step.

    [bold]Examples[/bold]

    rlvr show runs/my-run

    rlvr show runs/my-run --step 40 --sort score --limit 5

    rlvr show runs/my-run --problem train-17
    """
    from rlvr.show import show_rollouts

    show_rollouts(run, step=step, problem=problem, order=sort.value, limit=limit)


@app.command("list", rich_help_panel="Look")
def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)]) -> None:
    """List what a configuration may name, plug-ins included, each with its first line of documentation.

    [bold]Examples[/bold]

    rlvr list verifiers

    rlvr list algorithms

    rlvr list settings
    """
    from rlvr.cli.listing import print_names

    print_names(kind.value)


@app.command(rich_help_panel="Look")
def doctor(
    mismatch: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE.py | CONFIG.yaml | NAME",
            help="Build this run's model and engine and say whether their log-probs agree, and if not, why.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what works on this machine and how to mend what does not; with --mismatch, whether a run's engine samples what its policy learns.

    [bold]Examples[/bold]

    rlvr doctor

    rlvr doctor --mismatch my.yaml engine.name=vllm
    """
    if mismatch is not None:
        from rlvr.mismatch import diagnose as diagnose_mismatch

        if not diagnose_mismatch(read_run(mismatch, overrides), typer.echo):
            raise typer.Exit(FAILED)
        return
    from rlvr.cli.listing import print_checks
    from rlvr.doctor import diagnose

    if print_checks(diagnose()):
        raise typer.Exit(FAILED)
