"""A process reward model from labels to rewards: it learns worked sums, its export judges steps, and rollouts label them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rlvr.cli import app
from rlvr.errors import ConfigError
from rlvr.prm.classifier import load_classifier, make_samples
from rlvr.prm.config import ClassifierConfig, InputConfig, PrmConfig
from rlvr.prm.data import StepExample
from rlvr.prm.training import PrmResult, train_prm
from rlvr.response_lines import WrittenResponse
from rlvr.run import train
from rlvr.statistics import auc
from rlvr.tracking.metrics import read_metrics
from tests.integration.prm.chains import SEPARATOR, chains, save_language_model, write_rows
from tests.integration.runs.small_runs import small_run
from verifiers.errors import VerifierError
from verifiers.registry import build
from verifiers.types import Problem, Response, Verdict

REPOSITORY = Path(__file__).resolve().parents[3]


def small(folder: Path, model: Path, **changes: object) -> PrmConfig:
    settings = {
        "name": "small",
        "runs_folder": str(folder / "runs"),
        "num_threads": 1,
        "model": {"path": str(model)},
        "data": {"path": str(folder / "train.jsonl")},
        "input": {"separator": SEPARATOR},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2},
        "tracking": {"sinks": []},
    }
    return PrmConfig.model_validate(settings | changes)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has read nothing: for what needs a model and no knowledge."""
    return save_language_model(tmp_path_factory.mktemp("language_model"), num_steps=0)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> PrmResult:
    """A language model that has read 500 batches of worked sums, taught to judge their steps."""
    folder = tmp_path_factory.mktemp("learned")
    write_rows(folder / "train.jsonl", chains("train", 12_000, seed=0, wrong_share=0.8))
    write_rows(folder / "held_out.jsonl", chains("held_out", 500, seed=1))
    config = small(
        folder,
        save_language_model(folder / "model", num_steps=500),
        held_out={"path": str(folder / "held_out.jsonl")},
        num_steps=500,
        optimizer={"learning_rate": 1e-3, "warmup_steps": 20, "schedule": "cosine"},
    )
    return train_prm(config)


def test_it_finds_the_first_wrong_step_of_held_out_sums(learned: PrmResult) -> None:
    # Measured 2026-11-21 on one core, 100 s: AUC 0.992, steps 0.980, F1 0.958.
    assert learned.scores is not None and learned.scores.auc is not None and learned.scores.first_wrong_f1 is not None
    assert 0.95 < learned.scores.auc < 1.0
    assert 0.93 < learned.scores.step_accuracy < 1.0
    assert 0.87 < learned.scores.first_wrong_f1 < 1.0


def test_its_export_judges_responses_as_a_verifier(learned: PrmResult) -> None:
    verifier = build("process_reward", {"model": str(learned.export), "batch_size": 64})
    right, wrong = [], []
    for row in chains("held_out", 100, seed=1):
        text = SEPARATOR.join(row["steps"])
        problem = Problem("p", ({"role": "user", "content": row["question"]},), {})
        [verdict] = asyncio.run(verifier(problem, [WrittenResponse(text, "stop", len(text))]))
        assert verdict.steps[-1].end_char == len(text) and len(verdict.steps) == len(row["steps"])
        for step, label in zip(verdict.steps, row["labels"], strict=True):
            if label is not None:
                (right if label else wrong).append(step.score)
    assert auc(right, wrong) > 0.94  # A fifth of the problems of the test above: a wider band.


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, language_model: Path) -> None:
    write_rows(tmp_path / "train.jsonl", chains("train", 100, seed=0))
    whole = train_prm(small(tmp_path, language_model, name="whole", num_steps=6, samples_per_step=8, held_out_share=0))
    half = small(tmp_path, language_model, name="half", num_steps=3, samples_per_step=8, held_out_share=0)
    train_prm(half)
    resumed = train_prm(half.model_copy(update={"num_steps": 6}), resume=tmp_path / "runs" / "half")
    rows = [[row.to_json(with_time=False) for row in read_metrics(result.folder / "metrics.jsonl")] for result in (whole, resumed)]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    weights = [(result.export / "model.safetensors").read_bytes() for result in (whole, resumed)]
    assert weights[0] == weights[1]


def test_the_loss_does_not_depend_on_how_the_batch_is_split(tmp_path: Path, language_model: Path) -> None:
    write_rows(tmp_path / "train.jsonl", chains("train", 60, seed=0))
    losses = []
    for tokens in (1, 200, 100_000):
        config = small(tmp_path, language_model, name=f"split-{tokens}", num_steps=3, samples_per_step=16, tokens_per_microbatch=tokens)
        losses.append([row.values["supervised/loss"] for row in read_metrics(train_prm(config).folder / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[1] == pytest.approx(losses[2], rel=1e-5)


def test_every_token_of_a_step_may_learn_its_label(language_model: Path) -> None:
    form = InputConfig(separator=SEPARATOR, plain_template="{question}")
    classifier = load_classifier(ClassifierConfig(path=str(language_model)), form, seed=0)
    example = StepExample(({"role": "user", "content": "1="},), ("ab", "c", "d"), (1.0, None, 0.0))
    ends, every = (make_samples([example], classifier, 100, every_token=every)[0][0] for every in (False, True))
    # Two tokens of the question, then a, b, line break; c, line break, unlabelled; d, line break.
    assert ends.token_ids == every.token_ids and len(ends.token_ids) == 9
    assert (ends.places, ends.labels) == ((4, 8), (1.0, 0.0))
    assert (every.places, every.labels) == ((2, 3, 4, 7, 8), (1.0, 1.0, 1.0, 0.0, 0.0))


def test_the_command_trains_from_a_model_and_says_how_well_it_judges(tmp_path: Path, language_model: Path) -> None:
    write_rows(tmp_path / "train.jsonl", chains("train", 80, seed=0))
    arguments = [str(language_model), "--data", str(tmp_path / "train.jsonl"), "name=commanded", f"runs_folder={tmp_path}", "num_threads=1"]
    settings = ["held_out_share=0.2", "samples_per_step=16", 'input.separator="\\n"', "tracking.sinks=[]"]
    done = CliRunner().invoke(app, ["prm", "train", *arguments, *settings])
    assert done.exit_code == 0, done.output
    assert "held out: step accuracy" in done.output and "auc" in done.output
    export = next((tmp_path / "commanded" / "checkpoints").glob("step_*/export"))
    assert json.loads((export / "prm.json").read_text())["separator"] == "\n"
    assert f"export: {export}" in done.output


def test_a_wrong_row_ends_the_command_by_name(tmp_path: Path, language_model: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "q", "steps": ["a"], "labels": [7]}\n')
    command = [sys.executable, "-m", "rlvr", "prm", "train", str(language_model), "--data", "train.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "train.jsonl, row 1: field 'labels' must hold 0, 1" in done.stderr
    assert not (tmp_path / "runs").exists()


EVEN_LENGTH = f"{__name__}:EvenLength"


class EvenLength:
    """Correct where the response has an even number of characters; refuses to judge those that begin with a blank."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        if any(response.text.startswith(" ") for response in responses):
            raise VerifierError("a blank")
        return [Verdict(float(len(each.text) % 2 == 0), "incorrect" if len(each.text) % 2 else "correct") for each in responses]


def label(folder: Path, model: Path | str, *more: str) -> Result:
    arguments = ["--data", str(folder / "problems.jsonl"), "--output", str(folder / "steps.jsonl"), "--verifier", EVEN_LENGTH]
    settings = ["num_threads=1", "data.fields.id=id", "separator=H", "--max-new-tokens", "12", "--n", "4"]
    return CliRunner().invoke(app, ["prm", "label", str(model), *arguments, *settings, *more])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    write_rows(tmp_path / "problems.jsonl", [{"question": f"say {number}", "answer": "x", "id": f"p{number}"} for number in range(3)])
    return tmp_path


def test_solutions_are_drawn_and_their_steps_labelled_by_rollouts(problems: Path, tiny_model_folder: Path) -> None:
    done = label(problems, tiny_model_folder, "--samples", "2")
    assert done.exit_code == 0, done.output
    rows = read(problems / "steps.jsonl")
    assert sorted((row["id"], row["sample"]) for row in rows) == [(f"p{number}", sample) for number in range(3) for sample in range(2)]
    for row in rows:
        assert len(row["steps"]) == len(row["labels"]) == len(row["soft_labels"]) == len(row["rollouts"])
        for hard, soft, num_judged in zip(row["labels"], row["soft_labels"], row["rollouts"], strict=True):
            assert (
                (hard is None and soft is None) if num_judged == 0 else hard == (soft > 0) and soft * num_judged == round(soft * num_judged)
            )
    assert any(row["rollouts"][0] == 4 and row["unjudged"] == 0 for row in rows), "some first step was continued four times"
    assert "labelled steps" in done.output and "in 6 solutions to 3 problems" in done.output


def test_given_solutions_keep_their_text_and_the_last_step_has_their_own_verdict(problems: Path, tiny_model_folder: Path) -> None:
    solutions = [{"id": "p0", "response": "abHdeH"}, {"id": "p0", "response": "abHdefg"}, {"id": "p2", "response": " x"}]
    write_rows(problems / "solutions.jsonl", solutions)
    done = label(problems, tiny_model_folder, "--solutions", str(problems / "solutions.jsonl"))
    assert done.exit_code == 0, done.output
    even, odd, blank = sorted(read(problems / "steps.jsonl"), key=lambda row: (row["id"], row["sample"]))
    assert even["steps"] == ["abH", "deH"] and odd["steps"] == ["abH", "defg"] and blank["steps"] == [" x"]
    assert (even["labels"][1], odd["labels"][1], blank["labels"]) == (1, 0, [None])
    assert even["rollouts"] == [4, 1] and blank["unjudged"] == 1
    assert "1 rollouts could not be judged" in done.output


def test_labelling_goes_on_where_it_stopped_and_gives_the_same_labels(problems: Path, tiny_model_folder: Path) -> None:
    assert label(problems, tiny_model_folder).exit_code == 0
    output = problems / "steps.jsonl"
    whole = sorted(output.read_text().splitlines())
    kept = whole[0]
    output.write_text(f"{kept}\n{whole[1][:20]}")  # What a kill leaves: one problem, and half a line of the next.
    assert label(problems, tiny_model_folder).exit_code == 0
    assert output.read_text().splitlines()[0] == kept
    assert sorted(output.read_text().splitlines()) == whole


def test_labels_with_other_settings_are_never_mixed_in(problems: Path, tiny_model_folder: Path) -> None:
    assert label(problems, tiny_model_folder).exit_code == 0
    refused = label(problems, tiny_model_folder, "--n", "5")
    assert refused.exit_code == 2 and "give another --output, or replace them with --overwrite" in refused.output
    assert label(problems, tiny_model_folder, "--n", "5", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--temperature", "0"], "at temperature 0 all continuations would be the same"),
        (["--solutions", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_what_cannot_be_labelled_is_said_at_once(problems: Path, tiny_model_folder: Path, arguments: list[str], said: str) -> None:
    done = label(problems, tiny_model_folder, *arguments)
    assert done.exit_code == 2 and said in done.output


def test_a_service_cannot_continue_token_by_token(problems: Path) -> None:
    done = label(problems, "http://127.0.0.1:9/v1")
    assert done.exit_code == 2 and "name the model itself" in done.output


def test_labels_of_rollouts_are_learned_from(problems: Path, tiny_model_folder: Path, language_model: Path) -> None:
    assert label(problems, tiny_model_folder, "--samples", "2").exit_code == 0
    (problems / "steps.jsonl").rename(problems / "train.jsonl")
    for field in ("labels", "soft_labels"):
        data = {"path": str(problems / "train.jsonl"), "labels": field}
        config = small(problems, language_model, name=field, data=data, held_out_share=0, input={"separator": "H"}, num_steps=1)
        assert train_prm(config).steps_done == 1


def test_a_run_learns_from_the_steps_that_a_process_reward_model_scores(tmp_path: Path, tiny_model_folder: Path) -> None:
    load_classifier(ClassifierConfig(path=str(tiny_model_folder)), InputConfig(separator="H"), seed=0).export(tmp_path / "prm")
    config = small_run(
        tmp_path,
        tiny_model_folder,
        num_steps=2,
        verifier={"name": "process_reward", "options": {"model": str(tmp_path / "prm"), "separator": "H"}},
        algorithm={"name": "grpo", "advantage": "process_group_zscore"},
        held_out={"num_problems": None, "every": 0},
        checkpoint={"every": 0},
    )
    train(config)
    rewards = [row.values["reward/mean"] for row in read_metrics(tmp_path / "runs" / "small" / "metrics.jsonl")]
    assert len(rewards) == 2 and all(0 < reward < 1 for reward in rewards)


def test_what_cannot_be_trained_is_refused_by_name(tmp_path: Path, language_model: Path) -> None:
    from transformers import AutoModelForTokenClassification

    with pytest.raises(ConfigError, match="missing' is no folder with a model"):
        load_classifier(ClassifierConfig(path=str(tmp_path / "missing")), InputConfig(), seed=0)
    AutoModelForTokenClassification.from_pretrained(language_model, num_labels=5).save_pretrained(tmp_path / "five")
    with pytest.raises(ConfigError, match="tells 5 classes of tokens apart: two are needed"):
        load_classifier(ClassifierConfig(path=str(tmp_path / "five")), InputConfig(), seed=0)
    load_classifier(ClassifierConfig(path=str(language_model)), InputConfig(separator="|"), seed=0).export(tmp_path / "prm")
    with pytest.raises(ConfigError, match=r"input.separator=';', but .*prm.json was trained with '\|'"):
        load_classifier(ClassifierConfig(path=str(tmp_path / "prm")), InputConfig(separator=";"), seed=0)
    assert load_classifier(ClassifierConfig(path=str(tmp_path / "prm")), InputConfig(), seed=0).form.separator == "|"
