"""A report holds what a run or an evaluation wrote, says no more than that, and is safe to open whatever a model wrote."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rlvr.algorithms import DapoConfig, ReinforcePpConfig
from rlvr.cli import reporting
from rlvr.config import DataConfig, EvaluationConfig, GuardConfig, HeldOutConfig, LoraConfig, ModelConfig, RunConfig, SftConfig
from rlvr.config_files import write_yaml
from rlvr.errors import DataError
from rlvr.reporting.curves import MAX_POINTS, Point, draw_curve, show_number, thin, ticks
from rlvr.reporting.findings import find
from rlvr.reporting.report import read_page, write_report
from rlvr.reporting.run_metrics import RunMetrics
from rlvr.reporting.run_page import changed_settings
from rlvr.tracking.metrics import MetricsLog, MetricsRow
from rlvr.tracking.rollout_table import RolloutRow, RolloutTable

CONFIG = RunConfig(model=ModelConfig(path="m"), data=DataConfig(path="d.jsonl"), num_steps=4)
ATTACKS = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</pre></details>", '"><b>', "{{ 7 * 7 }}")
ROW = RolloutRow(
    step=1,
    group_index=0,
    problem_id="p0",
    prompt_text="2+2=",
    completion_text="4",
    num_tokens=2,
    finish_reason="stop",
    score=1.0,
    reward=1.0,
    advantage=0.5,
    outcome="correct",
    extracted="4",
    explanation="",
    mean_logprob=-0.25,
    first_version=0,
    last_version=0,
)
BENCHMARK: dict[str, Any] = {
    "suite": "math",
    "benchmark": "gsm8k",
    "source": "openai/gsm8k",
    "revision": "abc",
    "licence": "MIT",
    "verifier": "math",
    "prompt": "Please reason.",
    "max_new_tokens": 64,
    "temperature": 0.6,
    "num_problems": 100,
    "num_samples": 2,
    "metrics": {"avg": {"value": 0.5, "low": 0.4, "high": 0.6}, "mean_tokens": {"value": 312.5, "low": None, "high": None}},
    "seconds": {"total": 100.0, "generation": 80.0, "verification": 15.0},
}
RESULTS: dict[str, Any] = {
    "model": "runs/x/checkpoints/step_000040/export",
    "model_hash": "sha256:1",
    "engine": "transformers",
    "step": 40,
    "created": "2026-11-21T15:00:00+00:00",
    "rlvr": "0.1.0",
    "sampling": {"max_new_tokens": 64, "num_samples": 2, "temperature": 0.6},
    "benchmarks": [BENCHMARK],
}


class Document(HTMLParser):
    """Takes a page apart and insists that every element is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data


def write_run(folder: Path, rows: list[dict[str, float | None]] = (), rollouts: list[RolloutRow] = (), config: Any = CONFIG) -> Path:
    """Write what a run writes; the first row of metrics is that of step 0."""
    folder.mkdir(parents=True)
    write_yaml(config, folder / "config.yaml")
    if rows:
        with MetricsLog(folder / "metrics.jsonl") as log:
            for step, values in enumerate(rows):
                log.write(step, values)
    for step in sorted({row.step for row in rollouts}):
        RolloutTable(folder / "rollouts").write(step, [row for row in rollouts if row.step == step])
    return folder


def write_evaluation(folder: Path, responses: list[dict[str, Any]] = (), **changes: Any) -> Path:
    (folder / "math").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({**RESULTS, **changes}))
    if responses:
        (folder / "math" / "gsm8k.jsonl").write_text("".join(json.dumps(response) + "\n" for response in responses))
    return folder


def response(text: str, outcome: str | None = "correct", **fields: Any) -> dict[str, Any]:
    verdict = {"score": float(outcome == "correct"), "outcome": outcome, "extracted": "4", "explanation": "", "seconds": 0.1}
    judged = {"verdict": verdict} if outcome else {"error": "the sandbox is gone"}
    told = {"id": "a", "messages": [{"role": "user", "content": "2+2?"}], "reference": {"answer": "4"}, "sample": 0}
    return {**told, "response": text, "finish_reason": "stop", "num_tokens": 3, **judged, **fields}


def read(folder: Path) -> tuple[str, Document]:
    text = write_report(folder).read_text(encoding="utf-8")
    return text, Document(text)


def rows_of(*values: dict[str, float | None]) -> list[MetricsRow]:
    return [MetricsRow(step, row) for step, row in enumerate(values, start=1)]


def findings(*values: dict[str, float | None], config: Any = CONFIG) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in find(RunMetrics(rows_of(*values)), config)]


HELD_OUT = {"held_out/num_problems": 100.0, "held_out/num_failed": 0.0}
TRAINED = {"reward/mean": 0.5, "completion/mean_tokens": 20.0, "policy/entropy": 0.3, "time/step_seconds": 90.0, "verdict/format": 0.9}


def test_a_report_of_a_run_holds_headline_curves_settings_and_completions(tmp_path: Path) -> None:
    rows = [{"held_out/greedy_accuracy": 0.5, **HELD_OUT}, TRAINED, {**TRAINED, "held_out/greedy_accuracy": 0.75, **HELD_OUT}]
    _, page = read(write_run(tmp_path / "mine", rows, [ROW, dataclasses.replace(ROW, step=2, completion_text="forty-two")]))
    # Wilson, 50 of 100: (0.5 + 0.0192 ± 0.0998) / 1.0384; 75 of 100: (0.75 + 0.0192 ± 0.0870) / 1.0384.
    for told in (
        "mine",
        "grpo",
        "50.0\u00a0% → 75.0\u00a0%",
        "40.4\u00a0% to 59.6\u00a0%",
        "65.7\u00a0% to 82.5\u00a0%",
        "0:03:00 in steps",
    ):
        assert told in page.text
    for title in ("Reward and accuracy", "Length", "Policy", "Time", "Other metrics", "Completions of step 1", "Completions of step 2"):
        assert title in page.text
    assert "mean entropy of the policy on the tokens it wrote" in page.text and "forty-two" in page.text
    assert sum(tag == "svg" for tag, _ in page.elements) == 7  # Held-out accuracy and failed problems, five of TRAINED.
    assert "model.path" in page.text and "num_steps: 4" in page.text


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [TRAINED] * 3, [ROW])
    assert read(folder)[0] == read(folder)[0]


def test_what_a_model_wrote_is_never_markup(tmp_path: Path) -> None:
    attack = "".join(ATTACKS)
    hostile = dataclasses.replace(
        ROW, completion_text=attack, prompt_text=attack, extracted=attack, explanation=attack, problem_id=attack, outcome=attack
    )
    run = write_run(tmp_path / "run", [{f"verdict/{attack}": 0.5, **TRAINED}], [hostile])
    told = {"id": attack, "messages": [{"role": attack, "content": attack}], "reference": {attack: attack}, "extra": attack}
    changed = {**BENCHMARK, "prompt": attack, "source": attack, "metrics": {attack: BENCHMARK["metrics"]["avg"]}}
    evaluation = write_evaluation(
        tmp_path / "eval", [response(attack, "incorrect", **told), response(attack, None, error=attack, **told)], benchmarks=[changed]
    )
    for folder in (run, evaluation):
        text, page = read(folder)
        assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text and attack in page.text
        assert {"script", "img", "b"}.isdisjoint(tag for tag, _ in page.elements)
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_the_page_asks_nothing_of_any_network(tmp_path: Path) -> None:
    text, page = read(write_run(tmp_path / "run", [TRAINED] * 3, [ROW]))
    fetching = {"src", "srcset", "data", "action", "poster", "xlink:href"}
    assert not any(fetching & set(attributes) for _, attributes in page.elements)
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.elements)
    assert not re.search(r"url\(|@import", text) and "default-src 'none'" in text


def test_odd_characters_of_a_completion_can_be_written(tmp_path: Path) -> None:
    text, page = read(write_evaluation(tmp_path / "eval", [response("\nhalf \ud83d and \x00 nothing")]))
    assert "\x00" not in text and "half \\ud83d and \u2400 nothing" in page.text


def test_a_long_completion_loses_its_middle_not_its_answer(tmp_path: Path) -> None:
    long = dataclasses.replace(ROW, completion_text="x" * 1_000_000 + "The answer is 4.")
    text, page = read(write_run(tmp_path / "run", [TRAINED], [long]))
    assert "996,016 characters are left out here" in page.text and "The answer is 4." in page.text
    assert len(text) < 100_000


def test_the_report_of_a_long_run_stays_small(tmp_path: Path) -> None:
    rows = [{f"policy/{name}": math.sin(step * name) for name in range(60)} for step in range(2000)]
    text, page = read(write_run(tmp_path / "run", rows))
    assert len(text) < 1_500_000 and "20 more are in metrics.jsonl" in page.text


def test_a_run_without_metrics_says_so(tmp_path: Path) -> None:
    _, page = read(write_run(tmp_path / "run"))
    assert "The run has no metrics yet" in page.text and "No rollouts are saved" in page.text and "To look at" not in page.text


def test_a_supervised_run_shows_its_loss_and_validation(tmp_path: Path) -> None:
    config = SftConfig(model=ModelConfig(path="m"), data=DataConfig(path="d"), num_steps=2)
    rows = [{"supervised/loss": 3.0}, {"supervised/loss": 1.0, "validation/greedy_accuracy": 0.25}]
    _, page = read(write_run(tmp_path / "run", rows, config=config))
    assert "supervised training" in page.text and "25.0\u00a0%" in page.text and "share of validation problems solved" in page.text
    assert "1 of 2 steps" in page.text and "early_stop" in page.text


@pytest.mark.parametrize(
    ("metric", "bad", "told"),
    [
        ("groups/zero_variance_share", 1.0, r"100% of the groups all completions have the same reward.*guards.max_zero_variance_share=1"),
        ("completion/truncated_share", 0.95, r"95% of the completions were cut .*guards.max_truncated_share=0.9"),
        ("advantage/zero_share", 1.0, r"all advantages are zero.*\(at step 2\)"),
        ("policy/entropy", 0.0001, r"fell to 0.0001 nats .*guards.min_entropy=0.001"),
        ("engine/logprob_drift", 0.5, r"differ by 0.5 nats .*guards.max_logprob_drift=0.1"),
        ("policy/grad_norm", None, "gradient norm is nan"),
        ("policy/ratio_max", None, "policy/ratio_max was not a finite number in 1 steps, last at step 2"),
        ("groups/dropped_failed", 8.0, r"could not judge 8 groups, 5.9\u00a0% of all.*guards.max_failure_rate=0.05"),  # 8 / (4 * 32 + 8)
    ],
)
def test_what_passes_a_guard_is_to_be_looked_at(metric: str, bad: float | None, told: str) -> None:
    plain = {"reward/mean": 0.5, metric: 0.0 if metric.startswith("groups") else 0.04}
    assert findings(plain, plain, plain, plain) == []
    (found,) = [text for level, text in findings(plain, {**plain, metric: bad}, plain, plain) if level == "watch"]
    assert re.search(told, found, re.IGNORECASE)


def test_a_threshold_is_the_configuration_s() -> None:
    strict = CONFIG.model_copy(update={"guards": GuardConfig(max_truncated_share=0.1)})
    rows = [{"completion/truncated_share": 0.2}] * 4
    assert findings(*rows) == []
    assert [level for level, _ in findings(*rows, config=strict)] == ["watch"]


def test_equal_rewards_are_no_fault_where_groups_are_not_compared() -> None:
    config = CONFIG.model_copy(update={"num_steps": 1, "algorithm": ReinforcePpConfig()})
    assert findings({"groups/zero_variance_share": 1.0}, config=config) == []


def test_a_reward_that_rises_alone_is_noted() -> None:
    measured = ((0.2, 0.5), (0.4, 0.6), (0.6, 0.5), (0.8, 0.4))
    rows = [{"reward/mean": reward, "held_out/greedy_accuracy": held_out} for reward, held_out in measured]
    highest, alone = (text for _, text in findings(*rows))
    assert "was highest at step 2, 60.0\u00a0%, and ended at 40.0\u00a0%" in highest
    assert "The reward rose from 0.2 to 0.8, the accuracy held-out greedy did not" in alone


def test_a_gap_that_opens_between_a_learned_reward_and_its_auditor_is_found() -> None:
    rows = [{"verdict/audit_gap": gap, "verdict/audit": 0.5 - gap} for gap in (0.05, 0.2, 0.3, 0.45)]
    ((level, text),) = findings(*rows)
    assert level == "watch" and "stood 0.05 above the auditor's score at first and 0.45 at the end" in text
    assert "the auditor's went from 0.45 to 0.05" in text
    assert findings(*[{"verdict/audit_gap": 0.3, "verdict/audit": 0.5}] * 4) == []  # It was there from the start.


def test_settings_are_compared_with_the_defaults_of_the_chosen_algorithm() -> None:
    algorithm = DapoConfig(clip_high=0.3)
    model = ModelConfig(path="m", lora=LoraConfig(rank=8))
    held_out = HeldOutConfig(data=DataConfig(path="h"), every=5)
    evaluations = (EvaluationConfig(suite="gsm8k", every=4),)
    config = RunConfig(model=model, algorithm=algorithm, data=DataConfig(path="d"), held_out=held_out, evaluations=evaluations)
    assert {path: (value, default) for path, value, default in changed_settings(config)} == {
        "model.path": ("m", "required"),
        "model.lora": ("settings", "null"),
        "model.lora.rank": ("8", "16"),
        "algorithm": ("dapo", "grpo"),
        "algorithm.clip_high": ("0.3", "0.28"),
        "data.path": ("d", "required"),
        "held_out.data": ("settings", "null"),
        "held_out.data.path": ("h", "required"),
        "held_out.every": ("5", "0"),
        "evaluations": ("[{suite: gsm8k, every: 4, limit: null, num_samples: 1, max_new_tokens: null, data_folder: null}]", "[]"),
    }


def test_the_best_and_the_worst_completions_are_of_different_problems(tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(ROW, problem_id=problem, completion_text=f"{problem} {reward} {number}", reward=reward)
        for problem in "abcd"
        for reward in (0.0, 1.0)
        for number in range(2)
    ]
    _, page = read(write_run(tmp_path / "run", [TRAINED], rows))
    shown = re.findall(r"([abcd] [01]\.0 \d)", page.text)
    assert shown == ["a 1.0 1", "b 1.0 1", "c 1.0 1", "d 0.0 0", "c 0.0 0", "b 0.0 0"]


def test_completions_that_are_few_are_shown_once(tmp_path: Path) -> None:
    _, page = read(write_run(tmp_path / "run", [TRAINED], [ROW, dataclasses.replace(ROW, completion_text="5")]))
    assert sum(attributes.get("class") == "sample" for _, attributes in page.elements) == 2


def test_a_run_shows_its_evaluations_by_step_with_intervals(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [TRAINED])
    for step, value in ((0, 0.25), (40, 0.5)):
        metrics = {"avg": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        write_evaluation(folder / "eval" / f"step_{step:06d}", step=step, benchmarks=[{**BENCHMARK, "metrics": metrics}])
    write_evaluation(folder / "eval" / "hot" / "step_000040", benchmarks=[{**BENCHMARK, "temperature": 1.0}])
    write_evaluation(folder / "eval" / "short" / "step_000040", benchmarks=[{**BENCHMARK, "max_new_tokens": 8}])
    cool, warm, short = [part for part in read_page(folder).parts if part.title == "Evaluation: math/gsm8k"]
    assert cool.table is not None and cool.table.rows == [
        ("0", "eval/step_000000", "25.0\u00a0% [15.0\u00a0%, 35.0\u00a0%]"),
        ("40", "eval/step_000040", "50.0\u00a0% [40.0\u00a0%, 60.0\u00a0%]"),
    ]
    assert [figure.title for figure in cool.figures] == ["avg"] and 'class="band"' in cool.figures[0].svg
    assert warm.table is not None and len(warm.table.rows) == 1 and not warm.figures  # Sampled otherwise: not in the same curve.
    assert "max_new_tokens: 8" in short.note
    read(folder)


def test_what_benchmarks_measured_is_shown_once(tmp_path: Path) -> None:
    rows = [{"eval/math/gsm8k/avg": 0.5, "eval/math/avg": 0.5}, TRAINED]
    assert "eval/math/gsm8k/avg" in read(write_run(tmp_path / "lone", rows))[1].text
    folder = write_run(tmp_path / "run", rows)
    for step, average in ((0, 0.25), (40, 0.5)):
        metrics = {name: {"value": average, "low": 0.2, "high": 0.6} for name in ("avg", "pass@1", "pass@2", "pass@4")}
        write_evaluation(folder / "eval" / "training" / f"step_{step:06d}", step=step, benchmarks=[{**BENCHMARK, "metrics": metrics}])
    _, page = read(folder)
    assert "eval/math" not in page.text and "25.0\u00a0% → 50.0\u00a0%" in page.text
    (part,) = [part for part in read_page(folder).parts if part.title == "Evaluation: math/gsm8k"]
    assert part.table is not None and part.table.header == ("step", "folder", "avg", "pass@2", "pass@4")
    assert [figure.title for figure in part.figures] == ["avg", "pass@4"]


def test_an_evaluation_shows_results_sources_and_responses(tmp_path: Path) -> None:
    responses = [response(f"wrong {number}", "incorrect") for number in range(5)] + [response("right"), response("broken", None)]
    _, page = read(write_evaluation(tmp_path / "eval", responses))
    assert "50.0\u00a0% [40.0\u00a0%, 60.0\u00a0%]" in page.text
    for told in ("312", "openai/gsm8k", "MIT", "Please reason.", "temperature 0.6"):
        assert told in page.text
    assert "5 wrong, 1 right, 1 not judged" in page.text and "the sandbox is gone" in page.text
    assert "wrong 2" in page.text and "wrong 3" not in page.text


def test_responses_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    _, page = read(write_evaluation(tmp_path / "eval"))
    assert "The responses are not there: math/gsm8k.jsonl" in page.text


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, r"neither a run \(it has no config.yaml\) nor an evaluation .*rlvr train"),
        ({"runs/a/config.yaml": ""}, "did you mean .*runs/a"),
        ({"config.yaml": "- 1"}, "config.yaml: not the settings of a run"),
        ({"config.yaml": "model: {path: m}\ndata: {path: d}\nnum_stepz: 3"}, "config.yaml: .*num_stepz.*there is no such setting"),
        ({"metrics.jsonl": "nonsense\n"}, "metrics.jsonl, line 1"),
        ({"rollouts/step_000001.parquet": "PAR1"}, "step_000001.parquet: not a table of rollouts"),
        ({"results.json": "{}"}, "results.json: not the results of an evaluation .*`rlvr eval`"),
        ({"results.json": "[]"}, "results.json: not the results of an evaluation"),
        ({"results.json": "{"}, "results.json: not the results of an evaluation"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_explained(tmp_path: Path, files: dict[str, str | bytes], complaint: str) -> None:
    if any(name.startswith(("metrics", "rollouts", "eval")) for name in files):
        write_yaml(CONFIG, tmp_path / "config.yaml")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=complaint):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_evaluation_that_cannot_be_read_is_left_out_of_a_runs_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [TRAINED])
    write_evaluation(folder / "eval" / "step_000040", step=40)
    (folder / "eval" / "step_000001").mkdir()
    (folder / "eval" / "step_000001" / "results.json").write_text("{broken")
    page = read(folder)[1]
    assert "step_000001/results.json: not the results of an evaluation" in page.text and "Evaluation: math/gsm8k" in page.text


def test_a_malformed_response_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'gsm8k.jsonl, line 2: the field "response" is missing'):
        write_report(write_evaluation(tmp_path / "eval", [response("right"), {"id": "b"}]))


def test_a_folder_that_does_not_exist_and_a_place_that_cannot_be_written_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        write_report(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*--output FILE.html"):
        write_report(write_run(tmp_path / "run"), tmp_path / "file" / "report.html")


def test_the_command_names_the_file_it_wrote(tmp_path: Path) -> None:
    output = tmp_path / "out.html"
    done = CliRunner().invoke(reporting.app, ["report", str(write_run(tmp_path / "run")), "--output", str(output)])
    assert done.exit_code == 0 and done.output == f"report: {output}\n" and output.is_file()
    assert CliRunner().invoke(reporting.app, ["report", str(tmp_path)]).exit_code == 2


def test_a_curve_breaks_where_a_value_is_missing() -> None:
    # Two stretches of two points each give two lines; the lone point after the last gap is a dot.
    points = [Point(1, 0.0), Point(2, 1.0), Point(3, None), Point(4, 1.0), Point(5, 0.0), Point(6, None), Point(7, 1.0)]
    svg = draw_curve(points, label="x", show=show_number)
    assert svg.count('class="line"') == 2 and svg.count('class="dot"') == 5 and "step 3: not a finite number" in svg


def test_neighbours_are_averaged_and_a_gap_stays_where_all_are_missing() -> None:
    points = [Point(0, 1.0, 0.0, 2.0), Point(1, 3.0, 2.0, 4.0), Point(2, None), Point(3, None), Point(4, None), Point(5, 7.0)]
    assert thin(points, 3) == [Point(0.5, 2.0, 1.0, 3.0), Point(2.5, None), Point(4.5, 7.0)]
    assert len(thin([Point(x, 0.0) for x in range(100_000)], MAX_POINTS)) <= MAX_POINTS


def test_ticks_are_round() -> None:
    assert ticks(0.31, 0.47) == pytest.approx([0.35, 0.4, 0.45])
    assert ticks(0, 150) == [0, 50, 100, 150]


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=80))
def test_any_finite_values_can_be_drawn(values: list[float | None]) -> None:
    svg = draw_curve([Point(x, y) for x, y in enumerate(values)], label="<x>", show=show_number)
    assert "nan" not in svg and "inf" not in svg.replace("finite", "") and "<x>" not in svg
    Document(svg)
