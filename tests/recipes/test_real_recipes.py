"""The recipes for real models and data: checked on local rows with their own verifier, and run for two steps on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rlvr.config import RunConfig
from rlvr.dry_run import check_run
from rlvr.recipe import Plan, bundled_recipes, plan

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SMALL = [
    "num_steps=2",
    "num_threads=1",
    "sampling.max_new_tokens=12",
    "batch.prompts_per_step=4",
    "batch.group_size=4",
    "batch.minibatches_per_step=2",
    "held_out.every=0",
    "data.limit=64",
    "data.max_prompt_tokens=2048",
    "guards.max_truncated_share=1",
    "checkpoint.keep_best=false",
    "tracking.sinks=[]",
]


def local_data(recipe: str, data_dir: Path) -> list[str]:
    """Overrides that put the local mirror of the data in the hub's place."""
    if recipe == "gsm8k_grpo":
        fields = ["fields.question=problem", "fields.answer=solution", "subset=null", "split=train"]
        train, test = data_dir / "math" / "gsm8k_train.jsonl", data_dir / "math" / "gsm8k_test.jsonl"
        return [
            f"data.path={train}",
            f"held_out.data.path={test}",
            "held_out.num_problems=8",
            "held_out.data.max_prompt_tokens=2048",
            *(f"data.{field}" for field in fields),
            *(f"held_out.data.{field}" for field in fields),
        ]
    if recipe == "code_grpo":
        path = data_dir / "code" / "mbpp_sanitized_dev.jsonl"
        return [
            *(
                f"{place}data.{each}"
                for place in ("", "held_out.")
                for each in (f"path={path}", "subset=null", "fields.solution=canonical", "max_prompt_tokens=2048")
            ),
            "held_out.num_problems=8",
        ]
    # AIME's answers are integers, as those of DAPO-Math-17k are.
    path = data_dir / "math" / "aime24.jsonl"
    if recipe == "math_process_reward":
        return [f"data.path={path}", f"held_out.data.path={path}", "held_out.num_problems=4"]
    return [f"data.path={path}", "data.subset=null", "data.fields.question=problem", "data.fields.answer=answer", "held_out.num_problems=4"]


def planned(recipe: str, data_dir: Path, model: Path, runs: Path, *more: str) -> Plan:
    overrides = [f"model.path={model}", f"runs_folder={runs}", "name=test", *SMALL, *local_data(recipe, data_dir), *more]
    return plan(RunConfig, str(RECIPES / f"{recipe}.py"), overrides, None)


@pytest.mark.parametrize("recipe", ["gsm8k_grpo", "math_dapo", "code_grpo", "math_process_reward"])
def test_a_dry_run_on_local_data_finds_nothing_wrong_and_starts_nothing(
    recipe: str, data_dir: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(recipe, data_dir, tiny_model_folder, tmp_path / "runs")
    assert check_run(found.config, resume=None, makes_inputs=found.main is not None), capsys.readouterr()
    assert not (tmp_path / "runs" / "test").exists()


@pytest.mark.parametrize("recipe", ["gsm8k_grpo", "math_dapo", "code_grpo"])
def test_two_steps_on_a_tiny_model_change_it_and_leave_a_run(recipe: str, data_dir: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    more = ["verifier.name=tests.recipes.scoring:share_of_letters", "verifier.options={}"]
    planned(recipe, data_dir, tiny_model_folder, tmp_path, *more).start(None)
    rows = [json.loads(line) for line in (tmp_path / "test" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "policy/grad_norm" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(math.isfinite(row["policy/loss"]) and row["policy/grad_norm"] > 0 for row in steps)
    assert (tmp_path / "test" / "checkpoints" / "step_000002" / "export" / "model.safetensors").is_file()


def test_the_recipes_are_known_by_their_short_names() -> None:
    assert {"arithmetic_grpo", "gsm8k_grpo", "math_dapo", "code_grpo", "code_tiny_grpo"} <= set(bundled_recipes())


def test_a_process_reward_model_is_trained_and_then_judges_the_steps(
    data_dir: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import recipes.math_process_reward as recipe

    rows = [{"prompt": f"What is {n}+1?", "completions": [f"{n}+1", f"= {n + n % 2}"], "labels": [True, n % 2 == 1]} for n in range(40)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {
        "num_steps": 2,
        "num_threads": 1,
        "samples_per_step": 8,
        "model": recipe.prm.model.model_copy(update={"path": str(tiny_model_folder)}),
        "data": recipe.prm.data.model_copy(update={"path": str(tmp_path / "steps.jsonl")}),
    }
    monkeypatch.setattr(recipe, "prm", recipe.prm.model_copy(update=small))
    config = planned("math_process_reward", data_dir, tiny_model_folder, tmp_path / "runs").config
    assert isinstance(config, RunConfig)
    recipe.main(config)
    rows = [json.loads(line) for line in (tmp_path / "runs" / "test" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "policy/grad_norm" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(row["policy/grad_norm"] > 0 and 0 < row["verdict/audit_gap"] < 1 for row in steps)  # Nothing random is right.
    trained = recipe.prepare(config, tmp_path / "runs" / "test-preparation").verifier  # It is there already, and taken up.
    [_, process] = trained.options["parts"]
    assert process["options"]["model"] == str(tmp_path / "runs" / "test-preparation" / "prm" / "checkpoints" / "step_000002" / "export")
    assert recipe.prepare(config.model_copy(update={"verifier": trained}), tmp_path / "elsewhere").verifier == trained
    assert not (tmp_path / "elsewhere").exists()
