"""From an untrained model to one that reinforcement can start from: problems on disk, a supervised warm-up, and the settings that use both.

Shared by the recipes that need nothing downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.preparation import make_folder
from rlvr.config import DataConfig, EarlyStopConfig, OptimizerConfig, RunConfig, SftConfig
from rlvr.errors import TrainingStopped

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENOUGH = 0.3
"""Share of the validation problems at which the warm-up ends. Stopped much earlier, reinforcement finds too little to reinforce;
much later, there is nothing left to learn."""


def prepare_from_nothing(
    config: RunConfig,
    folder: Path,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> RunConfig:
    """Write the rows of `train`, `validation` and `held_out` and a warmed-up model into `folder`; return the configuration that uses them.

    Raises: ConfigError: the folder exists. TrainingStopped: the warm-up did not get far enough.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # Its bars would break into the run's own display.
    make_folder(config, folder)
    model.save_pretrained(folder / "untrained")
    tokenizer.save_pretrained(folder / "untrained")
    for split, split_rows in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split_rows), encoding="utf-8")

    def data(split: str) -> DataConfig:
        return config.data.model_copy(update={"path": str(folder / f"{split}.jsonl")})

    warmed_up = config.model.model_copy(update={"path": str(_warm_up(config, folder, data("train"), data("validation")))})
    held_out = config.held_out.model_copy(update={"data": data("held_out")})
    return config.model_copy(update={"model": warmed_up, "data": data("train"), "held_out": held_out})


def _warm_up(config: RunConfig, folder: Path, demonstrations: DataConfig, validation: DataConfig) -> Path:
    """Learn from demonstrations until enough of the validation problems are solved; return the model's folder."""
    import rlvr.run_sft

    settings = SftConfig(
        name="warmup",
        runs_folder=str(folder),
        seed=config.seed,
        num_steps=1000,
        num_threads=config.num_threads,
        model=config.model.model_copy(update={"path": str(folder / "untrained")}),
        data=demonstrations,
        samples_per_step=64,
        tokens_per_microbatch=config.batch.tokens_per_microbatch,
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=10),
        early_stop=EarlyStopConfig(data=validation, verifier=config.verifier, sampling=config.sampling, accuracy=ENOUGH, every=10),
        engine=config.engine.model_copy(update={"name": "transformers"}),  # No second engine for a few validation problems.
        deterministic=config.deterministic,
    )
    result = rlvr.run_sft.sft(settings)
    if result.validation is None or result.validation.score < ENOUGH:
        raise TrainingStopped(f"the warm-up did not solve {ENOUGH:.0%} of the validation problems within {settings.num_steps} steps")
    return result.export
