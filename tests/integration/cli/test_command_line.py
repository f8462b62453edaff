"""The installed command in processes of its own: what it imports, how fast it starts, and what a whole command leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "datasets", "numpy", "sympy", "docker", "vllm", "deepspeed")


def run(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, cwd=folder, timeout=120)


def rlvr(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "rlvr", *arguments, folder=folder)


@pytest.mark.parametrize("statement", ["import rlvr", "from rlvr.cli import app; app(['--help'], standalone_mode=False)"])
def test_help_and_import_load_nothing_heavy(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = run(sys.executable, "-c", program)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_verifying_a_file_loads_no_model_library(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "response": "<answer>4</answer>", "reference": {"answer": "4"}}) + "\n")
    program = (
        "import sys\nfrom rlvr.cli import main\n"
        "try: main(['verify', 'in.jsonl', '--verifier', 'exact_match', '--output', 'out.jsonl'])\n"
        "except SystemExit as done: print(done.code, 'torch' in sys.modules)"
    )
    done = run(sys.executable, "-c", program, folder=tmp_path)
    assert done.stdout.strip() == "0 False", done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text())["verdict"]["outcome"] == "correct"


def test_a_misspelt_option_ends_with_status_2_and_no_traceback() -> None:
    for arguments in (["train", "--dry-rnu"], ["trian"], ["train", "no_such_recipe"], ["verify"]):
        done = rlvr(*arguments)
        assert done.returncode == 2, done
        assert done.stderr and "Traceback" not in done.stderr


def test_a_recipe_file_runs_by_itself_with_the_options_of_train(tmp_path: Path) -> None:
    file = Path(__file__).parents[3] / "recipes" / "arithmetic_grpo.py"
    by_file = run(sys.executable, file, "--dry-run", "seed=1", folder=tmp_path)
    assert by_file.returncode == 0, by_file.stdout + by_file.stderr
    assert list(tmp_path.iterdir()) == []  # nothing was started


def test_training_from_yaml_can_be_shown_and_resumed(tmp_path: Path, tiny_model_folder: Path) -> None:
    rows = [{"question": f"{n}+1=", "answer": str(n + 1)} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.yaml").write_text(
        f"model: {{path: {tiny_model_folder}}}\n"
        "data: {path: train.jsonl, template: plain, plain_template: '{question}'}\n"
        "held_out: {num_problems: 4}\n"
        "sampling: {max_new_tokens: 4}\n"
        "batch: {prompts_per_step: 2, group_size: 2}\n"
        "name: first\nnum_steps: 2\nnum_threads: 1\n"
    )
    done = rlvr("train", "c.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = tmp_path / "runs" / "first" / "metrics.jsonl"
    assert json.loads(metrics.read_text().splitlines()[-1])["step"] == 2
    shown = rlvr("show", "runs/first", "--limit", "1", folder=tmp_path)
    assert shown.returncode == 0 and "step 2" in shown.stdout
    resumed = rlvr("train", "--resume", "runs/first", "num_steps=3", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()][-1] == 3
