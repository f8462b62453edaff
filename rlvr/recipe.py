"""Recipes: Python files with a `config` that `rlvr train FILE.py` runs, and that run by themselves with `python FILE.py`.

A recipe has a module-level `config: RunConfig` and may have `def main(config: RunConfig, *, resume: Path | None) -> None`, which prepares
what it needs (data, a model) and ends in `rlvr.run.train(config, resume=resume)`. Without `main` the training starts at once. Its last
lines are

    if __name__ == "__main__":
        rlvr.recipe.run(__file__)

A YAML file is the same without code. A bare name (`arithmetic_grpo`) is a recipe that comes with rlvr.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rlvr.config import RunConfig, SftConfig
from rlvr.config_files import read_yaml, resolve
from rlvr.errors import ConfigError
from rlvr.setting_paths import suggest

RecipeConfig = RunConfig | SftConfig
Main = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a source gives: where it lies, its settings before overrides, and its own way to run, if any."""

    path: Path
    config: RecipeConfig | dict[str, object]
    main: Main | None = None


def load_recipe(source: str, kind: type[RecipeConfig] = RunConfig) -> Recipe:
    """Return the recipe or the YAML settings a person named, by path or by a bundled recipe's short name.

    Raises: ConfigError: there is no such file, or it is not a recipe for this kind of run.
    """
    path = find_source(source)
    if path.suffix in (".yaml", ".yml"):
        _make_neighbours_importable(path)
        return Recipe(path, read_yaml(path))
    module = _import(path)
    config = getattr(module, "config", None)
    if not isinstance(config, kind):
        found = "has no module-level `config`" if config is None else f"has a `config` of type {type(config).__name__}"
        raise ConfigError(f"'{path}' {found}; `rlvr {'sft' if kind is SftConfig else 'train'}` needs `config = {kind.__name__}(…)`")
    main = getattr(module, "main", None)
    if main is not None and not callable(main):
        raise ConfigError(f"'{path}': `main` must be a function main(config, *, resume), not {main!r}")
    return Recipe(path, config, main)


def find_source(source: str) -> Path:
    """Return the file a person named.

    Raises: ConfigError: there is none; near names of bundled recipes are offered.
    """
    path = Path(source)
    if path.suffix in (".py", ".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"there is no file '{source}' (looked in {Path.cwd()}){suggest(path.stem, bundled_recipes(), otherwise='')}")
    if path.parent == Path() and source in bundled_recipes():
        return _recipes_folder() / f"{source}.py"
    known = bundled_recipes()
    raise ConfigError(f"'{source}' is neither a .py recipe, a .yaml file nor a recipe that comes with rlvr{suggest(source, known)}")


def bundled_recipes() -> list[str]:
    """Return the short names of the recipes in the `recipes` package: its files with a `config`."""
    return sorted(path.stem for path in _recipes_folder().glob("*.py") if "\nconfig = " in path.read_text(encoding="utf-8"))


def describe_recipe(name: str) -> str:
    """Return the first line of a bundled recipe's documentation, without running it."""
    tree = ast.parse((_recipes_folder() / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command line asks for: validated settings, notes on how they came to be, and how to start."""

    config: RecipeConfig
    notes: tuple[str, ...]
    main: Main | None

    def start(self, resume: Path | None) -> None:
        """Run the recipe's own `main`, or the training at once."""
        if self.main is not None:
            self.main(self.config, resume=resume)
            return
        from rlvr.distributed import print_once

        if isinstance(self.config, SftConfig):
            from rlvr.run_sft import sft

            print_once(sft(self.config, resume=resume).summary())
        else:
            from rlvr.run import train

            print_once(train(self.config, resume=resume).summary())


def plan(kind: type[RecipeConfig], source: str | None, overrides: Sequence[str], resume: Path | None) -> Plan:
    """Read what the command line names. A resumed run goes on with its saved settings; overrides are laid over them.

    Raises: ConfigError: there is nothing to run, or a setting is wrong.
    """
    if source is not None and "=" in source and not Path(source).exists():
        source, overrides = None, [source, *overrides]
    if source is None and resume is None:
        raise ConfigError(f"name a recipe or a YAML file; the bundled recipes are: {', '.join(bundled_recipes()) or 'none'}")
    recipe = load_recipe(source, kind) if source is not None else None
    base: RecipeConfig | dict[str, object] = recipe.config if recipe is not None else {}
    if resume is not None:
        base = read_yaml(saved_config(resume))
    try:
        resolved = resolve(kind, base, overrides)
    except ConfigError:
        other = SftConfig if kind is RunConfig else RunConfig
        if isinstance(base, dict) and _fits(other, base) and not _fits(kind, base):
            right, wrong = ("sft", "train") if kind is RunConfig else ("train", "sft")
            raise ConfigError(f"'{resume or source}' holds the settings of `rlvr {right}`, not of `rlvr {wrong}`") from None
        raise
    return Plan(resolved.config, resolved.notes, recipe.main if recipe is not None else None)


def _fits(kind: type[RecipeConfig], settings: dict[str, object]) -> bool:
    try:
        resolve(kind, settings)
    except ConfigError:
        return False
    return True


def saved_config(run: Path) -> Path:
    """Return the settings file of an existing run, named by its folder or by one of its checkpoints.

    Raises: ConfigError: the folder is not a run.
    """
    if run.parent.name == "checkpoints":
        run = run.parent.parent
    path = run / "config.yaml"
    if not run.is_dir():
        near = sorted(str(other.parent) for other in run.parent.glob("*/config.yaml")) if run.parent.is_dir() else []
        raise ConfigError(f"--resume {run}: there is no such folder{suggest(str(run), near) if near else ''}")
    if not path.is_file():
        raise ConfigError(f"--resume {run}: there is no config.yaml in it, so it is not a run that rlvr started")
    return path


def run(file: str) -> None:
    """Run a recipe file as `rlvr train` (or, where its config is a `SftConfig`, `rlvr sft`) does, with the arguments of this process."""
    from rlvr.cli import main

    module = sys.modules["__main__"]
    command = "sft" if isinstance(getattr(module, "config", None), SftConfig) else "train"
    main([command, file, *sys.argv[1:]])


def _recipes_folder() -> Path:
    spec = importlib.util.find_spec("recipes")
    if spec is None or not spec.submodule_search_locations:
        return Path("recipes")
    return Path(next(iter(spec.submodule_search_locations)))


def _import(path: Path) -> ModuleType:
    """Import a recipe file under its own name; its neighbours are importable from it as they are for `python FILE.py`."""
    name = f"rlvr_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigError(f"'{path}' cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _make_neighbours_importable(path)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"'{path}', line {error.lineno}: not valid Python: {error.msg}") from error
    except ModuleNotFoundError as error:
        raise ConfigError(f"'{path}' needs the module '{error.name}', which is not installed") from error
    return module


def _make_neighbours_importable(path: Path) -> None:
    """Let a recipe import, and a configuration name, the modules that lie beside it."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
