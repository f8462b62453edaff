"""`rlvr sandbox`: builds the image that untrusted programs run in, says what holds, and clears up."""

from __future__ import annotations

from typing import Annotated

import typer

from rlvr.cli import FAILED, app

Host = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The engine (unix://, tcp://, ssh://); by default your own, as the docker command finds it.", show_default=False
    ),
]

sandbox_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="The Docker sandbox that the verifier `code` runs programs in."
)
app.add_typer(sandbox_app, name="sandbox", rich_help_panel="Judge")


@sandbox_app.command()
def build(
    method: Annotated[
        str,
        typer.Option(metavar="auto | dockerfile | debootstrap", help="auto: the Dockerfile, or else Debian's packages."),
    ] = "auto",
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Start from this image, not from python:3.11-slim.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even where the image is there.")] = False,
    host: Host = None,
) -> None:
    """Build the image: Python, numpy and pytest, without anything that gives more rights.

    Where no registry can be reached it is made from Debian's packages by debootstrap, which needs root. An image that is there is kept:
    it is named by a hash of its recipe. The first use of the sandbox builds it, too.

    [bold]Examples[/bold]

    rlvr sandbox build

    rlvr sandbox build --method debootstrap
    """
    from rlvr.errors import ConfigError
    from sandbox.docker_engine import connect, has_image
    from sandbox.errors import SandboxUnavailable
    from sandbox.image.build import build_image, default_tag

    if method not in ("auto", "dockerfile", "debootstrap"):
        raise ConfigError(f"--method {method}: there are auto, dockerfile and debootstrap")
    try:
        client = connect(host, timeout_seconds=1800.0)
        if not force and has_image(client, default_tag()):
            typer.echo(f"{default_tag()} is there already; --force builds it again")
            return
        tag = build_image(client, method=method, base=base, report=lambda line: typer.echo(line, err=True))
    except SandboxUnavailable as error:
        _fail(error)
    typer.echo(f"built {tag}")


@sandbox_app.command()
def status(
    host: Host = None,
    runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="Look at containers of this runtime, such as runsc.", show_default=False)
    ] = None,
) -> None:
    """Say whether the engine answers, the image is there, and which limits of a container hold. Starts one container.

    [bold]Example[/bold]

    rlvr sandbox status
    """
    from rlvr.cli.listing import new_console, new_table
    from sandbox.status import container_finding, engine_finding, image_finding, limit_findings

    findings = [engine_finding(host)]
    if findings[0].holds:
        findings.append(image_finding(host))
        if findings[1].holds:
            findings += limit_findings(host, runtime)
        findings.append(container_finding(host))
    table = new_table("what", "holds", "detail")
    for finding in findings:
        table.add_row(finding.name, {True: "yes", False: "NO", None: ""}[finding.holds], finding.detail)
    new_console().print(table)
    if any(finding.holds is False for finding in findings):
        raise typer.Exit(FAILED)


@sandbox_app.command()
def clean(
    everything: Annotated[bool, typer.Option("--all", help="Also containers of processes that still run.")] = False,
    image: Annotated[bool, typer.Option("--image", help="Remove the image as well.")] = False,
    host: Host = None,
) -> None:
    """Remove sandbox containers that nobody owns any more. They end by themselves; this is for what an engine forgot.

    [bold]Example[/bold]

    rlvr sandbox clean --all --image
    """
    from sandbox.docker_engine import connect
    from sandbox.docker_pool import list_containers, remove_container, remove_orphans
    from sandbox.errors import SandboxUnavailable
    from sandbox.image.build import remove_images

    try:
        client = connect(host)
        removed = remove_orphans(client)
        if everything:
            for container in list_containers(client):
                remove_container(client, container["Id"])
                removed += 1
        images = remove_images(client) if image else []
    except SandboxUnavailable as error:
        _fail(error)
    typer.echo(f"removed {removed} containers" + (f" and the images {', '.join(images)}" if images else ""))


def _fail(error: Exception) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(FAILED)
