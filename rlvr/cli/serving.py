"""`rlvr serve` and `rlvr rollout`: the servers that the engine `vllm_server` samples from, and sampling without learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import app
from rlvr.cli.training import Overrides, Source, read_run


@app.command(rich_help_panel="Learn")
def serve(
    source: Source,
    overrides: Overrides = None,
    num_servers: Annotated[int, typer.Option(min=1, help="How many, on neighbouring ports; on GPUs each takes its own.")] = 1,
    host: Annotated[str, typer.Option(help="Where they listen; 0.0.0.0 lets other machines ask them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The first server's port.")] = 8000,
    log_folder: Annotated[Path, typer.Option(help="Where each server's log goes.")] = Path("serve-logs"),
) -> None:
    """Start vLLM servers for a run of this configuration, restart those that die, until interrupted.

    They take weights from the trainer and tell the log-probs that it needs; run the trainer with engine.name=vllm_server.
    Their endpoints trust whoever reaches them: listen on other addresses than 127.0.0.1 only in a network of your own.

    [bold]Examples[/bold]

    rlvr serve gsm8k_grpo --num-servers 2

    rlvr train gsm8k_grpo engine.name=vllm_server 'engine.servers.urls=[http://127.0.0.1:8000,http://127.0.0.1:8001]'
    """
    from rlvr.serve import keep_running, plan_servers

    plans = plan_servers(read_run(source, overrides), num_servers=num_servers, host=host, port=port, log_folder=log_folder)
    typer.echo(f"engine.servers.urls=[{','.join(each.url for each in plans)}]")
    keep_running(plans, typer.echo)


@app.command(rich_help_panel="Learn")
def rollout(
    source: Source,
    overrides: Overrides = None,
    groups: Annotated[int, typer.Option(min=1, help="How many prompts are sampled from, in the run's own order.")] = 64,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the groups go, tokens and log-probs included.")] = Path("groups"),
) -> None:
    """Sample and score with a run's model, engine, data and verifier, and learn nothing.

    A training run learns from the folder with rollouts.replay=FOLDER, so that sampling and learning can be looked at one by one.

    [bold]Examples[/bold]

    rlvr rollout my.yaml engine.name=vllm --groups 256 --output groups

    rlvr train my.yaml rollouts.replay=groups num_steps=8
    """
    from rlvr.rollout_only import roll_out

    typer.echo(roll_out(read_run(source, overrides), num_groups=groups, output=output).describe())
