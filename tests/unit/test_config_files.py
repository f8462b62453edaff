"""Settings: files and overrides become one validated object, and every mistake one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr.algorithm_settings import KlConfig
from rlvr.algorithms import DapoConfig, GrpoConfig
from rlvr.config import BatchConfig, DataConfig, ModelConfig, OptimizerConfig, RunConfig, SftConfig, VerifierConfig
from rlvr.config_files import parse_override, plain_settings, read_options, read_yaml, resolve, write_yaml
from rlvr.errors import ConfigError
from rlvr.setting_paths import describe_settings, discriminated_classes

BASE = {"model": {"path": "m"}, "data": {"path": "d"}}
ALGORITHMS = discriminated_classes(RunConfig.model_fields["algorithm"])


def config_with(*overrides: str, base: RunConfig | dict = BASE) -> RunConfig:
    return resolve(RunConfig, base, overrides).config


def error_of(*overrides: str, base: RunConfig | dict = BASE) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(RunConfig, base, overrides)
    return str(caught.value)


def recipe_config(**settings: object) -> RunConfig:
    return RunConfig(model=ModelConfig(path="m"), data=DataConfig(path="d"), **settings)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=1e-6", 1e-6),  # YAML 1.1 alone would read text
        ("x=true", True),
        ("x=null", None),
        ("x=[1, 2]", [1, 2]),
        ("x={a: 1}", {"a": 1}),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ("x=####\\s*(.+)", "####\\s*(.+)"),  # YAML alone would read a comment
        ("x='1'", "1"),
    ],
)
def test_an_override_is_read_as_yaml(text: str, value: object) -> None:
    parsed = parse_override(text)
    assert parsed.keys == ("x",)
    assert parsed.value == value and type(parsed.value) is type(value)


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=1", "x=[1, 2"])
def test_a_malformed_override_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ConfigError, match="^'" + text.replace("[", r"\[").replace(".", r"\.")):
        parse_override(text)


def test_overrides_reach_nested_settings_and_groups_that_are_off() -> None:
    config = config_with("optimizer.learning_rate=1e-5", "model.lora.rank=4", "optimizer.betas=[0.9,0.95]", "held_out.data.path=h")
    assert config.optimizer.learning_rate == 1e-5
    assert config.model.lora is not None and config.model.lora.rank == 4
    assert config.optimizer.betas == (0.9, 0.95)
    assert config.held_out.data is not None and config.held_out.data.path == "h"


def test_a_list_item_is_overridden_by_its_index() -> None:
    options = {"parts": [{"name": "math", "weight": 1}, {"name": "format", "weight": 0.1}]}
    config = config_with("verifier.options.parts.0.weight=2", base=recipe_config(verifier=VerifierConfig(options=options)))
    assert config.verifier.options == {"parts": [{"name": "math", "weight": 2}, {"name": "format", "weight": 0.1}]}
    assert options["parts"][0]["weight"] == 1  # the recipe's own object is left alone


def test_an_index_past_the_end_names_the_list() -> None:
    assert "'verifier.options.parts' is a list of 1 items" in error_of(
        "verifier.options.parts.3.weight=2", base=recipe_config(verifier=VerifierConfig(options={"parts": [{}]}))
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("algorithm.clip_hgih=0.3", "setting 'algorithm.clip_hgih' = 0.3: there is no such setting; did you mean 'clip_high'?"),
        (
            "learning_rate=0.1",
            "setting 'learning_rate' = 0.1: there is no such setting; did you mean 'optimizer.learning_rate' or 'algorithm.",
        ),
        ("algorithm.name=dpao", "setting 'algorithm.name' = 'dpao': there is no such name; did you mean 'dapo'"),
        ("algorithm=dapo", "setting 'algorithm' = 'dapo': this is a group of settings: set one of them, for example algorithm.name=dapo"),
        ("batch.group_size=0", "setting 'batch.group_size' = 0: must be greater than or equal to 1"),
        ("model.dtype=float16", "setting 'model.dtype' = 'float16': allowed are auto, float32, bfloat16; did you mean 'bfloat16'"),
        ("model.lora.target_modules=5", "setting 'model.lora.target_modules' = 5: must be a valid list or allowed are all-linear"),
        ("tracking.sinks=[tensorbord]", "setting 'tracking.sinks.0' = 'tensorbord': allowed are tensorboard, wandb, mlflow, trackio; did"),
        ("sampling.top_p=0.9", "setting 'sampling': training samples with top_p=0.9"),
        ("batch.group_size=1", "advantage=group_zscore compares completions of one prompt and group_size=1"),
        ("seed.x=1", "setting 'seed' = {'x': 1}: must be a valid integer"),
    ],
)
def test_a_wrong_setting_gives_one_line_with_path_value_and_remedy(override: str, line: str) -> None:
    message = error_of(override)
    assert message.startswith(line)
    assert "\n" not in message


def test_each_wrong_setting_has_its_line() -> None:
    assert len(error_of("batch.group_size=0", "num_steps=many").splitlines()) == 2


def test_a_missing_setting_is_named() -> None:
    assert error_of(base={"model": {"path": "m"}}) == "setting 'data' is required and missing: give data=…"


def test_a_setting_of_another_algorithm_is_an_error_when_a_person_sets_it() -> None:
    assert "'algorithm.gate_positive' = 2: there is no such setting" in error_of("algorithm.name=dapo", "algorithm.gate_positive=2")


def test_changing_the_algorithm_drops_the_recipes_settings_of_the_old_one_and_says_so() -> None:
    base = recipe_config(algorithm=GrpoConfig(clip_high=0.5, entropy_coefficient=0.01))
    resolved = resolve(RunConfig, base, ["algorithm.clip_low=0.1", "algorithm.name=dapo"])
    assert resolved.config.algorithm == DapoConfig(clip_low=0.1)  # dapo's own clip_high, the user's clip_low whatever the order
    assert resolved.notes == ("algorithm.name=dapo replaces algorithm.name=grpo: its settings clip_high, entropy_coefficient are dropped",)


def test_naming_the_algorithm_that_is_already_chosen_keeps_its_settings() -> None:
    resolved = resolve(RunConfig, recipe_config(algorithm=GrpoConfig(clip_high=0.5)), ["algorithm.name=grpo"])
    assert resolved.config.algorithm.clip_high == 0.5 and resolved.notes == ()


def test_a_partly_overridden_group_keeps_the_rest_of_its_fields_default() -> None:
    # GRPO's penalty is 0.04 (arXiv:2402.03300) though a bare KlConfig has 0; SFT's learning rate is 1e-5 though a bare one has 1e-6.
    assert config_with("algorithm.kl.estimator=k1").algorithm.kl == KlConfig(coefficient=0.04, estimator="k1")
    assert resolve(SftConfig, BASE, ["optimizer.weight_decay=0.1"]).config.optimizer == OptimizerConfig(
        learning_rate=1e-5, weight_decay=0.1
    )


def test_what_a_recipe_spells_out_in_python_stays_as_it_is() -> None:
    # KlConfig(estimator="k1") in Python has the coefficient 0, and keeps it.
    config = config_with(base=recipe_config(algorithm=GrpoConfig(kl=KlConfig(estimator="k1"))))
    assert config.algorithm.kl.coefficient == 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_survives_plain_settings_and_overrides(name: str) -> None:
    base = recipe_config(algorithm=ALGORITHMS[name]())
    assert plain_settings(base)["algorithm"] == {"name": name}
    assert config_with(base=base).model_dump() == base.model_dump()
    changed = config_with("algorithm.kl.horizon=7", base=base).algorithm
    assert changed.kl == base.algorithm.kl.model_copy(update={"horizon": 7})


@pytest.mark.parametrize("text", ["${x}", "\\${y}", "\\\\${z}", "???", "#", "####\\s*(.+)", "a: b", "1e-6", "", " ", "ü\n\"'"])
def test_a_saved_configuration_reads_back_equal(tmp_path: Path, text: str) -> None:
    config = recipe_config(optimizer=OptimizerConfig(learning_rate=1e-6, eps=1 / 3), verifier=VerifierConfig(options={"prompt": [text]}))
    config = config.model_copy(update={"data": DataConfig(path="d", plain_template=text)})
    write_yaml(config, tmp_path / "config.yaml")
    assert resolve(RunConfig, read_yaml(tmp_path / "config.yaml")).config.model_dump() == config.model_dump()


def test_yaml_may_refer_to_itself_and_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/models")
    (tmp_path / "c.yaml").write_text("model: {path: '${oc.env:MODELS}/a', tokenizer: '${model.path}'}\ndata: {path: d}\n")
    model = resolve(RunConfig, read_yaml(tmp_path / "c.yaml")).config.model
    assert (model.path, model.tokenizer) == ("/models/a", "/models/a")


@pytest.mark.parametrize(
    ("content", "message"), [("a: [1", "cannot be read as YAML"), ("- 1\n", "holds a list"), ("a: ${b}", "Interpolation key 'b' not found")]
)
def test_an_unreadable_yaml_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


def test_a_verifiers_options_are_nested_mappings() -> None:
    assert read_options(["a.b=1", "a.c=[x]", "d=true"]) == {"a": {"b": 1, "c": ["x"]}, "d": True}


def test_every_setting_is_described_with_what_it_may_be() -> None:
    settings = {setting.path: setting for setting in describe_settings(RunConfig)}
    assert settings["model.dtype"].allowed == "auto | float32 | bfloat16"
    assert settings["algorithm.name"].allowed == " | ".join(ALGORITHMS)
    assert settings["algorithm.kl.coefficient"].default == "0.04"
    assert settings["model.path"].default == "required"
    assert "checkpoint.keep_best" in settings


def test_an_adaptive_kl_that_one_step_could_turn_negative_is_refused() -> None:
    # 4 prompts of 8 completions: at the clip of -0.2 a step multiplies by 1 - 0.2 * 32 / 6 < 0.
    kl = KlConfig(coefficient=0.1, controller="adaptive", horizon=6)
    batch = BatchConfig(prompts_per_step=4, group_size=8)
    with pytest.raises(ValueError, match="set algorithm.kl.horizon above 6"):
        recipe_config(batch=batch, algorithm=GrpoConfig(kl=kl))
    assert recipe_config(batch=batch, algorithm=GrpoConfig(kl=kl.model_copy(update={"horizon": 7})))
