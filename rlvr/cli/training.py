"""`rlvr train` and `rlvr sft`: from a recipe or a YAML file with overrides to a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvr.cli import app
from rlvr.errors import ConfigError

if TYPE_CHECKING:
    from rlvr.config import RunConfig

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE.py | CONFIG.yaml | NAME",
        help="A recipe, a YAML file with settings, or the short name of a recipe that comes with rlvr.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Settings that replace the recipe's; `rlvr list settings` shows them all.", show_default=False
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings, model, data, verifier and folders, predict memory; start nothing.")
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="Go on from the last checkpoint of this run folder, with the settings saved there.", show_default=False
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="With --dry-run: check and predict the memory for so many processes.",
        show_default=False,
    ),
]


@app.command(rich_help_panel="Learn")
def train(
    source: Source = None, overrides: Overrides = None, dry_run: DryRun = False, resume: Resume = None, processes: Processes = None
) -> None:
    """Train a policy by reinforcement learning.

    On several GPUs or machines: torchrun --nproc-per-node 8 -m rlvr train … deepspeed.zero_stage=2

    [bold]Examples[/bold]

    rlvr train arithmetic_grpo

    rlvr train gsm8k_grpo model.path=Qwen/Qwen3-0.6B num_steps=200 --dry-run

    rlvr train my.yaml algorithm.name=dapo algorithm.clip_high=0.3 verifier.options.parts.0.weight=2

    rlvr train --resume runs/my-run num_steps=400
    """
    from rlvr.config import RunConfig

    _run(RunConfig, source, overrides, dry_run, resume, processes)


@app.command(rich_help_panel="Learn")
def sft(
    source: Source = None, overrides: Overrides = None, dry_run: DryRun = False, resume: Resume = None, processes: Processes = None
) -> None:
    """Train a policy on demonstrations, for example to warm it up before reinforcement learning.

    [bold]Examples[/bold]

    rlvr sft warmup.yaml model.path=runs/base data.path=demonstrations.jsonl

    rlvr sft --resume runs/warmup
    """
    from rlvr.config import SftConfig

    _run(SftConfig, source, overrides, dry_run, resume, processes)


def _run(kind: type, source: str | None, overrides: list[str] | None, dry_run: bool, resume: Path | None, processes: int | None) -> None:
    from rlvr.recipe import plan

    planned = plan(kind, source, overrides or [], resume)
    for note in planned.notes:
        typer.echo(f"note: {note}", err=True)
    if dry_run:
        from rlvr.dry_run import check_run

        could_start = check_run(planned.config, resume=resume, makes_inputs=planned.main is not None, num_processes=processes or 1)
        raise typer.Exit(0 if could_start else 2)
    if processes is not None:
        raise ConfigError(
            f"--processes {processes} is for --dry-run; to train, start them: torchrun --nproc-per-node {processes} -m rlvr …"
        )
    planned.start(resume)


def read_run(source: str | None, overrides: list[str] | None) -> RunConfig:
    """Return the settings of a training run that something else than training is to be done with.

    Raises: ConfigError: there are none, they are wrong, or the recipe would first have to make its model or its data.
    """
    from rlvr.config import PREPARED_BY_RECIPE, RunConfig
    from rlvr.errors import ConfigError
    from rlvr.recipe import plan

    planned = plan(RunConfig, source, overrides or [], None)
    for note in planned.notes:
        typer.echo(f"note: {note}", err=True)
    assert isinstance(planned.config, RunConfig)
    made = {name: f"{name}.path" for name in ("model", "data") if getattr(planned.config, name).path == PREPARED_BY_RECIPE}
    if planned.config.verifier.asks_prepared_model:
        made["verifier's model"] = "verifier.options"
    if made:
        settings = " and ".join(made.values())
        raise ConfigError(
            f"'{source}' makes its {' and '.join(made)} when it runs: set {settings} to what a run of it made, "
            "or name that run's config.yaml"
        )
    return planned.config
