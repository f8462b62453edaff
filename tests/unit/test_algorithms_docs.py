"""What docs/algorithms.md says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from rlvr.advantages import GroupRewards
from rlvr.algorithm_settings import PROCESS_ADVANTAGES
from rlvr.algorithms import AlgorithmConfig, GrpoConfig
from rlvr.batch import LossInputs
from tests.unit.test_algorithms import BUNDLES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "algorithms.md").read_text()
ALGORITHM = TypeAdapter(AlgorithmConfig)
SAMPLE = re.compile(r"```(yaml|python)\n(.*?)```", re.DOTALL)


def samples(language: str) -> list[str]:
    return [text for found, text in SAMPLE.findall(PAGE) if found == language]


@pytest.mark.parametrize("name", BUNDLES)
def test_the_table_shows_each_bundle_as_it_is(name: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    advantage, loss, aggregation, *_ = BUNDLES[name]
    assert [cell.strip() for cell in row.split("|")[2:5]] == [f"`{advantage}`", f"`{loss}`", f"`{aggregation}`"]


def test_every_yaml_line_is_a_valid_algorithm() -> None:
    documents = [text for block in samples("yaml") for text in re.split(r"\n(?=algorithm:)", block)]
    assert len(documents) == 12
    for text in documents:
        ALGORITHM.validate_python(yaml.safe_load(text)["algorithm"])


def test_the_table_of_step_advantages_names_those_there_are() -> None:
    rows = re.findall(r"^\| `(process_\w+)` \|", PAGE, re.MULTILINE)
    assert rows == list(PROCESS_ADVANTAGES)


def test_the_advantage_and_the_loss_of_ones_own_work_as_written() -> None:
    names: dict[str, object] = {}
    for block in samples("python"):
        exec(block, names)  # noqa: S102
    # Best of two is the first: 1 - 1/2 and 0 - 1/2.
    credits = names["best_only"](GroupRewards(torch.tensor([1.0, 0.0]), torch.tensor([2, 1])))
    assert [credit.tolist() for credit in credits] == [[0.5, 0.5], [-0.5]]
    one = torch.zeros(1, 1)
    inputs = LossInputs(one, one, one, None, one + 2, torch.ones(1, 1, dtype=torch.bool))
    assert names["unclipped"](inputs, GrpoConfig()).token_loss.item() == -2.0
