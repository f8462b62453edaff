"""What a recipe makes before it trains (data, a model) and where: a folder beside the run. Shared by the recipes that prepare something."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rlvr.config import RunConfig
from rlvr.errors import ConfigError


def train_prepared(config: RunConfig, resume: Path | None, *, task: str, prepare: Callable[[RunConfig, Path], RunConfig]) -> None:
    """Train on what `prepare(config, folder)` makes; a resumed run has that behind it. A run without a name is called by its `task`."""
    import rlvr.run

    if resume is None:
        name = config.name or f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
        config = prepare(config.model_copy(update={"name": name}), Path(config.runs_folder) / f"{name}-preparation")
    print(rlvr.run.train(config, resume=resume).summary())


def make_folder(config: RunConfig, folder: Path) -> None:
    """Make the folder of a preparation.

    Raises: ConfigError: it exists.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"name={config.name}: {folder} exists already; choose another name or remove the folder") from error
