"""The commands through typer's runner: results, exit statuses, and one line for what a person can mend."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlvr.cli import app
from rlvr.cli.listing import REGISTRIES, print_checks
from rlvr.setting_paths import discriminated_classes
from rlvr.tracking.rollout_table import RolloutRow, RolloutTable
from verifiers.errors import VerifierError
from verifiers.types import Problem, Response, Verdict

ROW = RolloutRow(1, 0, "p0", "2+2=", "four", 4, "stop", 0.0, 0.0, -0.5, "incorrect", "four", "'four' is not '4'", -0.5, 0, 0)


def rlvr(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer(identifier: object, response: str, gold: str, **more: object) -> dict:
    return {"id": identifier, "response": response, "reference": {"answer": gold}, **more}


async def slow_first(problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
    """Takes longest for the first line, fails on `bad`, hangs on `hang`, has a bug on `bug`."""
    gold = problem.reference["answer"]
    if gold == "bad":
        raise VerifierError("the judge is out")
    if gold == "bug":
        raise KeyError("oops")
    await asyncio.sleep(3600 if gold == "hang" else 0.2 if problem.id == "0" else 0.0)
    return [Verdict(1.0, "correct", extracted=response.text) for response in responses]


SLOW_FIRST = f"{__name__}:slow_first"


@pytest.fixture(autouse=True)
def importable_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


# --- verify


def test_verify_keeps_every_field_and_the_order(tmp_path: Path) -> None:
    records = [answer("a", "<answer>4</answer>", "4", note={"x": [1]}), answer(2, "<answer>5</answer>", "4"), answer("c", "?", "4")]
    source, output = write_lines(tmp_path / "in.jsonl", *records), tmp_path / "new" / "out.jsonl"
    result = rlvr("verify", source, "--verifier", "exact_match", "--output", output)
    assert result.exit_code == 0, result.output
    written = read_lines(output)
    assert [{key: value for key, value in record.items() if key != "verdict"} for record in written] == records
    assert [set(record["verdict"]) for record in written] == [{"score", "outcome", "extracted", "explanation", "seconds"}] * 3
    assert [(r["verdict"]["score"], r["verdict"]["outcome"], r["verdict"]["extracted"]) for r in written] == [
        (1.0, "correct", "4"),
        (0.0, "incorrect", "5"),
        (0.0, "unparseable", None),
    ]
    assert "judged 3 (1 correct, 1 incorrect, 1 unparseable), mean score 0.3333" in result.stderr


def test_verify_passes_options_to_the_verifier(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", answer("a", "PARIS", "Paris"))
    result = rlvr("verify", source, "--verifier", "exact_match", "--output", tmp_path / "out", "ignore_case=true", "extraction=whole")
    assert result.exit_code == 0
    assert read_lines(tmp_path / "out")[0]["verdict"]["outcome"] == "correct"


def test_lines_that_cannot_be_judged_carry_an_error_and_the_status_is_3(tmp_path: Path) -> None:
    golds = ["x", "bad", "x", "bug", "hang", "x"]
    source = write_lines(tmp_path / "in.jsonl", *[answer(str(n), "r", gold, verdict="old", error="old") for n, gold in enumerate(golds)])
    result = rlvr("verify", source, "--verifier", SLOW_FIRST, "--output", tmp_path / "out", "--timeout", "0.5", "--concurrency", "4")
    assert result.exit_code == 3, result.output
    written = read_lines(tmp_path / "out")
    assert [record["id"] for record in written] == ["0", "1", "2", "3", "4", "5"]  # though line 0 was judged last
    assert ["error" in record for record in written] == [False, True, False, True, True, False]
    assert [("verdict" in record) != ("error" in record) for record in written] == [True] * 6
    assert written[1]["error"] == "the judge is out"
    assert "KeyError('oops')" in written[3]["error"] and "passed its deadline of 0.5 s" in written[4]["error"]
    assert written[0]["verdict"]["seconds"] >= 0.19
    assert "3 could not be judged" in result.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken\n", "line 2: not JSON"),
        ("[1]\n", "line 2: not a JSON object but '[1]'"),
        ({"id": "x", "response": "r"}, "line 2: the field \"reference\" is missing; there are 'id', 'response'"),
        (answer("x", 5, "4"), 'line 2: "response" must be text, got 5'),  # type: ignore[arg-type]
        ({"id": "x", "response": "r", "reference": "4"}, "line 2: \"reference\" must be an object, got '4'"),
        (answer("x", "r", "4", messages=["hi"]), 'line 2: "messages" must be a list of objects'),
        (answer("x", "r", "4", finish_reason="eos"), 'line 2: "finish_reason" must be one of stop, length, aborted'),
        (answer("x", "r", "4", num_tokens=-1), 'line 2: "num_tokens" must be a whole number'),
        (answer("x", "r", "4", tags=[1]), 'line 2: "tags" must be a text or a list of texts, got [1]'),
    ],
)
def test_an_unreadable_line_is_named_before_anything_is_judged(tmp_path: Path, line: object, message: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", answer("a", "4", "4"), line)
    result = rlvr("verify", source, "--verifier", "exact_match", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr and str(source) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_text_that_is_no_unicode_goes_through(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", answer("a", "\ud800", "4"), "\n", answer("b", "é", "4"))
    assert rlvr("verify", source, "--verifier", "exact_match", "--output", tmp_path / "out").exit_code == 0
    assert [record["response"] for record in read_lines(tmp_path / "out")] == ["\ud800", "é"]
    assert "é" in (tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.jsonl", "--verifier", "exact_mach", "--output", "out"], "did you mean 'exact_match'"),
        (["in.jsonl", "--verifier", "exact_match", "--output", "out", "ignore_cas=true"], "did you mean 'ignore_case'"),
        (["in.jsonl", "--verifier", "exact_match", "--output", "out", "ignore_case"], "'ignore_case' is not a setting"),
        (["in.jsonl", "--verifier", "exact_match", "--output", "in.jsonl"], "is the input"),
        (["missing.jsonl", "--verifier", "exact_match", "--output", "out"], "missing.jsonl cannot be read"),
        (["in.jsonl", "--verifier", "exact_match", "--output", "in.jsonl/out"], "cannot be written"),
    ],
)
def test_bad_usage_of_verify_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "in.jsonl", answer("a", "4", "4"))
    result = rlvr("verify", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1


# --- show


@pytest.fixture
def run(tmp_path: Path) -> Path:
    table = RolloutTable(tmp_path / "run" / "rollouts")
    right = dataclasses.replace(ROW, completion_text="<answer>4</answer>", score=1.0, reward=1.0, outcome="correct", extracted="4")
    table.write(1, [ROW])
    table.write(2, [ROW, right, dataclasses.replace(ROW, group_index=1, problem_id="p1", prompt_text="[red]7+7=", score=0.5)])
    return tmp_path / "run"


def test_show_prints_prompts_once_and_completions_with_their_verdicts(run: Path) -> None:
    output = rlvr("show", run).stdout
    assert "step 2" in output and output.count("2+2=") == 1 and "[red]7+7=" in output
    assert "<answer>4</answer>" in output and "'four' is not '4'" in output
    assert "3 completions in 2 groups: 2 incorrect, 1 correct; mean reward 0.333, mean length 4 tokens" in output


def test_show_selects_sorts_and_limits(run: Path) -> None:
    assert "step 1" in rlvr("show", run, "--step", 1).stdout
    assert "2+2=" not in rlvr("show", run, "--problem", "p1").stdout
    lowest = rlvr("show", run, "--sort", "score", "--limit", 1).stdout
    assert "score 0 " in lowest and "score 0.5" not in lowest and "2 more in this step" in lowest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["run", "--step", "9"], "no rollouts of step 9; there are steps 1-2"),
        (["run", "--problem", "p7"], "step 2 has no problem 'p7'"),
    ],
)
def test_show_names_what_is_not_there(run: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(run.parent)
    result = rlvr("show", *arguments)
    assert result.exit_code == 2 and message in result.stderr


# --- list, doctor


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_is_listed(kind: str) -> None:
    output = rlvr("list", kind).stdout
    names = REGISTRIES[kind].names()
    assert [name for name in names if name not in output] == []
    assert names or f"no {kind} are registered" in output


def test_algorithms_are_listed_with_what_they_bundle() -> None:
    from rlvr.config import RunConfig

    output = rlvr("list", "algorithms").stdout
    assert [name for name in discriminated_classes(RunConfig.model_fields["algorithm"]) if name not in output] == []
    assert "token_mean" in output and "arXiv:2503.14476" in output


def test_settings_and_recipes_are_listed() -> None:
    assert "optimizer.learning_rate" in rlvr("list", "settings").stdout
    assert "arithmetic_grpo" in rlvr("list", "recipes").stdout


def test_an_unknown_kind_names_the_kinds() -> None:
    result = rlvr("list", "verifyers")
    assert result.exit_code == 2 and "'verifiers'" in result.stderr


def test_checks_are_printed_with_their_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    doctor = pytest.importorskip("rlvr.doctor")
    fine = doctor.Check("python", "ok", "3.11", "")
    assert print_checks([fine]) is False
    assert print_checks([fine, doctor.Check("docker", "broken", "no answer", "start the daemon")]) is True
    assert "start the daemon" in capsys.readouterr().out


# --- train


def test_a_wrong_setting_is_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {path: m}\ndata: {path: d}\n")
    result = rlvr("train", tmp_path / "c.yaml", "algorithm.clip_hgih=0.3")
    assert result.exit_code == 2
    assert result.stderr == "error: setting 'algorithm.clip_hgih' = 0.3: there is no such setting; did you mean 'clip_high'?\n"


def test_a_bundled_recipe_passes_its_dry_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = rlvr("train", "arithmetic_grpo", "--dry-run", "seed=1")
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []  # nothing was started


def test_a_changed_algorithm_is_noted(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {path: /no}\ndata: {path: /no.jsonl}\nalgorithm: {name: grpo, clip_high: 0.4}\n")
    result = rlvr("train", tmp_path / "c.yaml", "algorithm.name=dapo", "--dry-run")
    assert result.exit_code == 2
    assert "note: algorithm.name=dapo replaces algorithm.name=grpo: its settings clip_high are dropped" in result.stderr


def test_resuming_nothing_is_one_line_and_status_2(tmp_path: Path) -> None:
    result = rlvr("train", "--resume", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --resume {tmp_path}/nowhere: there is no such folder")


@pytest.mark.parametrize("command", ["train", "sft", "verify", "audit", "show", "list", "doctor"])
def test_every_command_teaches_by_example(command: str) -> None:
    assert f"rlvr {command}" in rlvr(command, "--help").stdout.partition("Example")[2]
