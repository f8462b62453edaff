"""Recipes: Python files with a `config` that `rlvr train FILE.py` runs, and that run by themselves with `python FILE.py`.

A recipe has a module-level `config: RunConfig` and may have `def main(config: RunConfig, *, resume: Path | None) -> None`, which prepares
what it needs (data, a model) and ends in `rlvr.run.train(config, resume=resume)`. Without `main` the training starts at once. Its last
lines are

    if __name__ == "__main__":
        rlvr.recipe.run(__file__)

A YAML file is the same without code. A bare name (`arithmetic_grpo`) is a recipe that comes with rlvr.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rlvr.config import RunConfig, SftConfig
from rlvr.config_files import read_yaml
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
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"'{path}', line {error.lineno}: not valid Python: {error.msg}") from error
    except ModuleNotFoundError as error:
        raise ConfigError(f"'{path}' needs the module '{error.name}', which is not installed") from error
    return module
