"""One warmed-up model for all learning tests: two-digit addition, three tenths of the problems solved."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.arithmetic_grpo import config as recipe
from recipes.arithmetic_grpo import prepare
from rlvr.config import RunConfig

SEED = 1


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The arithmetic recipe's configuration with model and data for two-digit addition."""
    settings = recipe.model_copy(update={"seed": SEED, "num_threads": 1, "name": "learning"})
    return prepare(settings, Path(tmp_path_factory.mktemp("learning")) / "preparation", digits=(2, 2), num_train=5000)
