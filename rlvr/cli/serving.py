"""`rlvr serve`: the servers that the engine `vllm_server` samples from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvr.cli import app
from rlvr.cli.training import Overrides, Source


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
    from rlvr.config import PREPARED_BY_RECIPE, RunConfig
    from rlvr.errors import ConfigError
    from rlvr.recipe import plan
    from rlvr.serve import keep_running, plan_servers

    planned = plan(RunConfig, source, overrides or [], None)
    assert isinstance(planned.config, RunConfig)
    if planned.config.model.path == PREPARED_BY_RECIPE:
        raise ConfigError("the recipe makes its model when it runs: give the folder it made with model.path=RUN-preparation/…/export")
    plans = plan_servers(planned.config, num_servers=num_servers, host=host, port=port, log_folder=log_folder)
    typer.echo(f"engine.servers.urls=[{','.join(each.url for each in plans)}]")
    keep_running(plans, typer.echo)
