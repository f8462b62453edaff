"""What a recipe makes before it trains (data, models) and where: a folder beside the run. Shared by the recipes that prepare something."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr.config import PREPARED_BY_RECIPE, RunConfig, VerifierConfig
from rlvr.errors import ConfigError


def train_prepared(config: RunConfig, resume: Path | None, *, task: str, prepare: Callable[[RunConfig, Path], RunConfig]) -> None:
    """Train on what `prepare(config, folder)` makes; a resumed run has that behind it. A run without a name is called by its `task`.

    Of several processes one prepares, by itself, and the others wait.
    """
    import rlvr.run
    from rlvr.distributed import joined_ranks, print_once

    def prepared() -> RunConfig:
        name = config.name or f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
        alone = config.model_copy(update={"name": name, "deepspeed": None})
        ready = prepare(alone, Path(config.runs_folder) / f"{name}-preparation")
        return ready.model_copy(update={"deepspeed": config.deepspeed})

    with joined_ranks(config) as ranks:
        ready = ranks.from_main(prepared) if resume is None else config
        result = rlvr.run.train(ready, resume=resume)
    print_once(result.summary())


def make_folder(config: RunConfig, folder: Path) -> None:
    """Make the folder of a preparation.

    Raises: ConfigError: it exists.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"name={config.name}: {folder} exists already; choose another name or remove the folder") from error


def judging_with(verifier: VerifierConfig, model: Path) -> VerifierConfig:
    """Return the verifier with the model that the recipe made wherever its options leave the model to the recipe."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each) for each in value]
        return str(model) if value == PREPARED_BY_RECIPE else value

    return verifier.model_copy(update={"options": filled(verifier.options)})
