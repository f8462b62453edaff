"""`rlvr show`, `rlvr list` and `rlvr doctor`: they look at runs, names and the machine, and change nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import FAILED, app

Kind = StrEnum("Kind", "verifiers suites algorithms advantages losses engines sandboxes settings recipes")
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
def doctor() -> None:
    """Say what works on this machine and how to mend what does not.

    [bold]Example[/bold]

    rlvr doctor
    """
    from rlvr.cli.listing import print_checks
    from rlvr.doctor import diagnose

    if print_checks(diagnose()):
        raise typer.Exit(FAILED)
