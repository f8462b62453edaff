"""Tables of names, settings and checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlvr.config import RunConfig
from rlvr.registries import ADVANTAGES, ENGINES, ENVIRONMENTS, LOSSES, SANDBOXES, SUITES, VERIFIERS, Registry
from rlvr.setting_paths import describe_settings, discriminated_classes
from verifiers.errors import RegistryError

if TYPE_CHECKING:
    from rlvr.doctor import Check

REGISTRIES = {
    "verifiers": VERIFIERS,
    "suites": SUITES,
    "advantages": ADVANTAGES,
    "losses": LOSSES,
    "engines": ENGINES,
    "environments": ENVIRONMENTS,
    "sandboxes": SANDBOXES,
}
STYLES = {"ok": "green", "warning": "yellow", "missing": "yellow", "broken": "bold red"}


def print_names(kind: str) -> None:
    """Print the table of one kind of name."""
    others: dict[str, Callable[[], Table]] = {"algorithms": _algorithms, "settings": _settings, "recipes": _recipes}
    table = others[kind]() if kind in others else _registered(REGISTRIES[kind])
    if table.row_count == 0:
        print(f"no {kind} are registered")
        return
    new_console().print(table)


def print_checks(checks: Sequence[Check]) -> bool:
    """Print what works on this machine; return whether something is broken."""
    table = new_table("check", "status", "detail")
    for check in checks:
        remedy = f"\n{check.remedy}" if check.remedy else ""
        table.add_row(check.name, Text(check.status, style=STYLES.get(check.status, "")), Text(f"{check.detail}{remedy}"))
    new_console().print(table)
    return any(check.status == "broken" for check in checks)


def _registered(registry: Registry) -> Table:
    table = new_table("name", "what it does")
    for name in registry.names():
        try:
            description = Text(_first_line(registry.get(name)))
        except RegistryError as error:
            description = Text(str(error), style="red")
        table.add_row(Text(name), description)
    return table


def _algorithms() -> Table:
    table = new_table("name", "advantage", "loss", "aggregation", "what it is")
    for name, cls in discriminated_classes(RunConfig.model_fields["algorithm"]).items():
        fields = cls.model_fields
        values = [str(fields[key].default) for key in ("advantage", "loss", "aggregation")]
        table.add_row(name, *values, Text(_first_line(cls)))
    return table


def _settings() -> Table:
    table = new_table("setting", "default", "allowed", "meaning")
    for setting in describe_settings(RunConfig):
        table.add_row(*map(Text, (setting.path, setting.default, setting.allowed, setting.description)))
    return table


def _recipes() -> Table:
    from rlvr.recipe import bundled_recipes, describe_recipe

    table = new_table("name", "what it does")
    for name in bundled_recipes():
        table.add_row(Text(name), Text(describe_recipe(name)))
    return table


def _first_line(target: object) -> str:
    return (inspect.getdoc(target) or "").partition("\n")[0]


def new_table(*columns: str) -> Table:
    """Return a table without lines, whose cells wrap."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def new_console() -> Console:
    """Return standard output: as wide as the terminal, or wide enough for tables in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)
