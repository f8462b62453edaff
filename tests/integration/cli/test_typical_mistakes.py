"""What people get wrong with a run: each is one line that names the remedy, found before the model is loaded where that is possible."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlvr.cli import app
from rlvr.config_files import write_yaml
from rlvr.run_folder import RunFolder, naming_the_way_on
from tests.integration.runs.small_runs import small_run


def rlvr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def only_line(result: Result, status: int = 2) -> str:
    """The one error line of a command that ended with this status and left no traceback."""
    assert result.exit_code == status, (result.output, result.exception)
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def settings(tmp_path: Path, tiny_model_folder: Path) -> Path:
    write_yaml(small_run(tmp_path, tiny_model_folder, num_steps=2, held_out={"num_problems": None, "every": 0}), tmp_path / "c.yaml")
    return tmp_path / "c.yaml"


def test_a_run_that_is_done_says_so_and_how_to_train_on(settings: Path) -> None:
    assert rlvr("train", settings).exit_code == 0
    run = settings.parent / "runs" / "small"
    again = rlvr("train", "--resume", run)
    assert again.exit_code == 0 and "all 2 steps are done; to train on, give more, for example num_steps=4" in again.stderr
    assert "num_steps=1, but the run has done 2 steps: give more than 2" in only_line(rlvr("train", "--resume", run, "num_steps=1"))
    # The refused setting did not find its way into the run's configuration.
    assert "num_steps: 2" in (run / "config.yaml").read_text()
    other_model = rlvr("train", "--resume", run, "num_steps=3", "model.lora.rank=4")
    assert "leave the run's model settings as they were" in only_line(other_model, status=1)


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path: Path, settings: Path) -> None:
    (tmp_path / "killed").mkdir()
    shutil.copy(settings, tmp_path / "killed" / "config.yaml")
    assert "the run has no checkpoint yet; start it anew" in only_line(rlvr("train", "--resume", tmp_path / "killed"))


def test_a_model_folder_without_a_tokenizer_is_named(tmp_path: Path, settings: Path, tiny_model_folder: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model_folder / name, bare / name)
    line = only_line(rlvr("train", settings, f"model.path={bare}"))
    assert f"no tokenizer in '{bare}'" in line and "set model.tokenizer" in line
    checked = rlvr("train", settings, f"model.path={bare}", "--dry-run")
    assert checked.exit_code == 2 and f"no tokenizer in '{bare}'" in checked.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("verifier.name=nix", "no verifier 'nix'"),
        ("verifier.options.shre=1", "has no option 'shre'"),
        ("tracking.sinks=[wandb]", "pip install 'rlvr[wandb]'"),
        ("batch.minibatches_per_step=9", "minibatches_per_step=9 is more than the 2 x 4 completions of a step"),
        ("batch.group_size=1", "set batch.group_size to at least 2"),
        ("sampling.top_p=0.9", "set top_p=1 and top_k=0"),
        ("algorithm={name: grpo, advantage: pass_at_k, pass_k: 5}", "lower pass_k"),
    ],
)
def test_what_needs_no_model_to_be_seen_is_found_before_one_is_loaded(settings: Path, override: str, message: str) -> None:
    # The folder is none: had the model been asked for first, the complaint would be about it.
    assert message in only_line(rlvr("train", settings, "model.path=./no/such/folder", override))


def test_settings_of_the_other_command_are_recognised(settings: Path) -> None:
    assert f"'{settings}' holds the settings of `rlvr train`, not of `rlvr sft`" in only_line(rlvr("sft", settings))


def test_a_verifier_may_lie_beside_the_configuration(settings: Path) -> None:
    (settings.parent / "a_plugin_beside_it.py").write_text("async def judge(problem, responses):\n    return [1 / 0 for _ in responses]\n")
    line = only_line(rlvr("train", settings, "verifier.name=a_plugin_beside_it:judge"), status=1)
    assert "raised ZeroDivisionError" in line


def test_a_verifier_may_lie_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_plugin_right_here.py").write_text(
        "from verifiers import Verdict\nasync def judge(problem, responses):\n    return [Verdict(1.0, 'correct') for _ in responses]\n"
    )
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "response": "4", "reference": {}}) + "\n")
    assert rlvr("verify", "in.jsonl", "--verifier", "a_plugin_right_here:judge", "--output", "out.jsonl").exit_code == 0


def test_the_dry_run_says_what_the_recipe_will_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = rlvr("train", "arithmetic_grpo", "--dry-run").stdout.splitlines()
    assert "ok      model: the recipe prepares it when it runs; not checked here" in lines
    assert "ok      data: the recipe prepares it when it runs; not checked here" in lines
    assert not any(line.startswith(("warning", "wrong")) for line in lines)


def test_a_recipe_does_not_prepare_anew_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine-preparation").mkdir()
    line = only_line(rlvr("train", "arithmetic_grpo", f"runs_folder={tmp_path}", "name=mine"))
    assert line.endswith("mine-preparation exists already; choose another name or remove the folder")


def test_an_interrupt_before_the_first_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="no checkpoint was saved yet"), naming_the_way_on(RunFolder(tmp_path), "train"):
        raise KeyboardInterrupt


def test_ctrl_c_ends_a_run_with_status_130_and_the_command_that_goes_on(tmp_path: Path, tiny_model_folder: Path) -> None:
    config = small_run(
        tmp_path, tiny_model_folder, num_steps=100_000, runs_folder="runs", held_out={"num_problems": None}, checkpoint={"every": 1}
    )
    write_yaml(config, tmp_path / "c.yaml")
    repository = str(Path(__file__).resolve().parents[3])
    program = f"import signal, sys; sys.path.append({repository!r}); signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from rlvr.cli import main; main(['train', 'c.yaml'])"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    metrics, deadline = tmp_path / "runs" / "small" / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") > 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("interrupted: go on from step_") and last.endswith("with: rlvr train --resume runs/small")
