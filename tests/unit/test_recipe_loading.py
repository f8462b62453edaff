"""Recipes and YAML files become a plan: settings, notes and a way to start; what is wrong with one is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr.config import RunConfig, SftConfig
from rlvr.config_files import write_yaml
from rlvr.errors import ConfigError
from rlvr.recipe import bundled_recipes, describe_recipe, load_recipe, plan

RECIPE = """
from pathlib import Path

from rlvr.config import DataConfig, ModelConfig, RunConfig

config = RunConfig(num_steps=7, model=ModelConfig(path="m"), data=DataConfig(path="d"))
"""
MAIN = """
def main(config, *, resume=None):
    Path(__file__).with_name("called").write_text(f"{config.num_steps} {resume}")
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(RECIPE + MAIN)
    return path


def run_config(**settings: object) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "m"}, "data": {"path": "d"}, **settings})


def test_a_recipe_gives_its_settings_with_overrides_on_top(recipe: Path) -> None:
    planned = plan(RunConfig, str(recipe), ["seed=3"], None)
    assert (planned.config.num_steps, planned.config.seed) == (7, 3)


def test_a_recipes_main_is_given_the_settings_and_what_to_resume(recipe: Path) -> None:
    plan(RunConfig, str(recipe), ["num_steps=9"], None).start(None)
    assert recipe.with_name("called").read_text() == "9 None"


def test_a_recipe_may_import_its_neighbours(recipe: Path) -> None:
    recipe.with_name("neighbour_of_mine.py").write_text("STEPS = 5")
    recipe.write_text("import neighbour_of_mine\n" + RECIPE.replace("7", "neighbour_of_mine.STEPS"))
    config = load_recipe(str(recipe)).config
    assert isinstance(config, RunConfig) and config.num_steps == 5


def test_a_yaml_file_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {path: m}\ndata: {path: d}\n")
    planned = plan(RunConfig, str(tmp_path / "c.yaml"), ["algorithm.name=rloo"], None)
    assert planned.config.algorithm.name == "rloo" and planned.main is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "has no module-level `config`"),
        ("config = {}", "has a `config` of type dict"),
        ("def f(:", "line 1: not valid Python"),
        ("import no_such_package_at_all", "needs the module 'no_such_package_at_all', which is not installed"),
        (RECIPE + "\nmain = 3", "`main` must be a function"),
    ],
)
def test_a_file_that_is_no_recipe_says_why(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.py"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(str(path))
    assert str(path) in str(caught.value)


def test_a_recipes_own_bug_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_recipe(str(tmp_path / "r.py"))


def test_a_training_recipe_is_not_taken_for_a_supervised_one(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="`rlvr sft` needs `config = SftConfig"):
        load_recipe(str(recipe), SftConfig)


@pytest.mark.parametrize("source", ["nowhere.py", "nowhere.yaml", "no_such_recipe", "some/folder"])
def test_a_source_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(ConfigError, match=source):
        load_recipe(source)


def test_the_bundled_recipes_are_named_and_described() -> None:
    names = bundled_recipes()
    assert "arithmetic_grpo" in names and "__init__" not in names
    assert all(describe_recipe(name) for name in names)


def test_a_misspelt_bundled_recipe_is_recognised() -> None:
    with pytest.raises(ConfigError, match="did you mean 'arithmetic_grpo'"):
        load_recipe("aritmetic_grpo")


def test_a_resumed_run_goes_on_with_the_settings_saved_in_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step_000010"
    checkpoint.mkdir(parents=True)
    write_yaml(run_config(seed=5, num_steps=10), run / "config.yaml")
    for place in (run, checkpoint):
        planned = plan(RunConfig, "num_steps=20", [], place)  # no source: the first word is an override
        assert (planned.config.seed, planned.config.num_steps) == (5, 20)


def test_a_resumed_recipe_keeps_its_main(tmp_path: Path, recipe: Path) -> None:
    write_yaml(run_config(num_steps=10), tmp_path / "config.yaml")
    plan(RunConfig, str(recipe), [], tmp_path).start(tmp_path)
    assert recipe.with_name("called").read_text() == f"10 {tmp_path}"


def test_resuming_what_is_no_run_says_so_and_offers_near_ones(tmp_path: Path) -> None:
    (tmp_path / "run-a").mkdir()
    write_yaml(run_config(), tmp_path / "run-a" / "config.yaml")
    with pytest.raises(ConfigError, match=r"there is no such folder; did you mean '.*run-a'"):
        plan(RunConfig, None, [], tmp_path / "run-b")
    with pytest.raises(ConfigError, match="no config.yaml in it"):
        plan(RunConfig, None, [], tmp_path)


def test_nothing_to_run_names_the_bundled_recipes() -> None:
    with pytest.raises(ConfigError, match="name a recipe or a YAML file; the bundled recipes are: .*arithmetic_grpo"):
        plan(RunConfig, None, [], None)
