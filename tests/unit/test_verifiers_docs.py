from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rlvr.config import DataConfig, HeldOutConfig, VerifierConfig
from verifiers.registry import VERIFIERS, build

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_documented_verifier_has_ten_lines_and_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    definition, check = blocks("verifiers.md", "python")
    assert len([line for line in definition.splitlines() if line.strip()]) <= 10
    module = ModuleType("shouted")
    monkeypatch.setitem(sys.modules, "shouted", module)
    exec(compile(definition + check, "verifiers.md", "exec"), module.__dict__)


def test_the_documented_verifier_configurations_build(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("shouted")
    monkeypatch.setitem(sys.modules, "shouted", module)
    exec(blocks("verifiers.md", "python")[0], module.__dict__)
    for block in blocks("verifiers.md", "yaml"):
        config = VerifierConfig(**yaml.safe_load(block)["verifier"])
        build(config.name, config.options)


def test_the_table_of_built_in_verifiers_names_registered_ones_and_their_options() -> None:
    import inspect

    section = (DOCS / "verifiers.md").read_text().split("## Built in")[1].split("```")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    assert sorted(name for name, _ in rows) == VERIFIERS.names()
    for name, options in rows:
        assert set(re.findall(r"`(\w+)`", options)) == set(inspect.signature(VERIFIERS.get(name)).parameters)


def test_the_documented_data_settings_are_valid() -> None:
    data, held_out = blocks("data.md", "yaml")
    DataConfig(**yaml.safe_load(data)["data"])
    HeldOutConfig(**yaml.safe_load(held_out)["held_out"])


def test_the_documented_message_on_a_wrong_row_is_the_one_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr.data.problems import load_problems
    from rlvr.errors import DataError

    [message] = re.findall(r"```\n(train.jsonl.*?)\n```", (DOCS / "data.md").read_text())
    (tmp_path / "train.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n{"qestion": "1+1?", "answer": "2"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_problems(DataConfig(path="train.jsonl"))
