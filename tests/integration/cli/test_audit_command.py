"""`rlvr audit` as a person calls it: the table, the rows that disagree, the files it writes, and its exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlvr.cli import app

ROWS = [
    {"id": "a", "gold": "1/2", "answer": "0.5", "label": True, "kind": "fraction", "source": "book"},
    {"id": "b", "gold": "1/2", "answer": "0.25", "label": False, "kind": "fraction", "source": "book"},
    {"id": "c", "gold": "7", "response": "I think it is <answer>8</answer>", "label": True, "kind": "integer", "source": "web"},
    {"id": "d", "gold": "7", "response": "Perhaps.", "label": False, "kind": "integer", "source": "web"},
    {"id": "e", "gold": "7", "answer": "7", "label": None, "kind": "integer", "source": "web"},
]


def rlvr(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def cells(result: Result, first: str) -> list[str]:
    """The cells of the printed table row that begins with `first`."""
    [line] = [line for line in result.stdout.splitlines() if line.startswith(f"{first} ")]
    return re.split(r"\s{2,}", line.strip())


def test_the_table_says_by_kind_and_in_total_how_verdicts_and_labels_agree(tmp_path: Path) -> None:
    result = rlvr("audit", "numeric", "--labelled", write(tmp_path / "l.jsonl", ROWS))
    assert result.exit_code == 0, result.output
    # 0.5 is 1/2 and 0.25 is not; 8 is rejected though labelled right; "Perhaps." has no answer. 2 of 2: 2 / (2 + 3.8415) = 34.24 %.
    assert cells(result, "fraction") == ["fraction", "2", "100 [34.24, 100] 2/2", *["0 [0, 79.35] 0/1"] * 2, "0", "0"]
    integer = ["integer", "2", "50 [9.45, 90.55] 1/2", "0 [0, 79.35] 0/1", "100 [20.65, 100] 1/1", "0", "1"]
    assert cells(result, "integer") == integer
    assert cells(result, "total")[:3] == ["total", "4", "75 [30.06, 95.44] 3/4"]
    assert cells(result, "c") == ["c", "integer", "7", "8", "true", "incorrect", "'8' is not '7'"]
    assert "1 rows whose label is null, 1 of them accepted" in result.stdout
    assert re.search(r"latency per check in ms: p50 \S+  p99 \S+  max \S+", result.stdout)
    assert "judging: 5" in result.stderr  # progress


def test_rows_can_be_grouped_by_another_field(tmp_path: Path) -> None:
    result = rlvr("audit", "numeric", "--labelled", write(tmp_path / "l.jsonl", ROWS), "--by", "source", "--show", 0)
    assert cells(result, "source")[0] == "source" and cells(result, "book")[1] == cells(result, "web")[1] == "2"
    assert "1 more: --show 1 prints all" in result.stdout


def test_the_files_hold_everything(tmp_path: Path) -> None:
    source, output, summary = write(tmp_path / "l.jsonl", ROWS), tmp_path / "new" / "out.jsonl", tmp_path / "audit.json"
    result = rlvr("audit", "numeric", "--labelled", source, "--output", output, "--json", summary, "--show", 0, "tolerance=1")
    assert result.exit_code == 0, result.output
    # A tolerance of 1 accepts 8 for 7, and 0.25 for 1/2 as well.
    [disagreement] = [json.loads(line) for line in output.read_text().splitlines()]
    assert {key: value for key, value in disagreement.items() if key != "verdict"} == ROWS[1]
    assert disagreement["verdict"]["outcome"] == "correct" and disagreement["verdict"]["extracted"] == "0.25"
    numbers = json.loads(summary.read_text())
    assert numbers["verifier"] == "numeric" and numbers["options"] == {"tolerance": 1}
    assert numbers["total"]["false_positives"] == {"count": 1, "of": 2, "share": 0.5, "low": pytest.approx(0.0945, abs=1e-4)} | {
        "high": pytest.approx(0.9055, abs=1e-4)
    }
    assert numbers["groups"]["integer"]["accuracy"]["count"] == 2 and numbers["groups"]["integer"]["outcomes"] == {
        "correct": 1,
        "unparseable": 1,
    }
    assert numbers["undecided"] == {"num_rows": 1, "num_accepted": 1}
    assert 0 < numbers["latency_ms"]["p50"] <= numbers["latency_ms"]["p99"] <= numbers["latency_ms"]["max"]


def test_rows_that_could_not_be_judged_give_status_3(tmp_path: Path) -> None:
    rows = [*ROWS, {"id": "no number", "gold": "Paris", "answer": "7", "label": False}]
    result = rlvr("audit", "numeric", "--labelled", write(tmp_path / "l.jsonl", rows), "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 3
    assert cells(result, "(none)")[2:] == ["0 [0, 79.35] 0/1", "0 [0, 79.35] 0/1", "–", "1", "0"]
    last = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])
    assert last["id"] == "no number" and "'Paris' is not a number" in last["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exact_mach"], "did you mean 'exact_match'"),
        (["exact_match", "ignore_cas=true"], "did you mean 'ignore_case'"),
        (["exact_match", "--labelled", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["exact_match", "--labelled", "wrong.jsonl"], 'wrong.jsonl, line 2: the field "label" is missing'),
        (["exact_match", "--by", "knd"], 'no row has a field "knd" to group by'),
        (["exact_match", "--json", "l.jsonl/out"], "--json l.jsonl/out cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "l.jsonl", ROWS)
    write(tmp_path / "wrong.jsonl", [ROWS[0], {"gold": "1", "answer": "1"}])
    result = rlvr("audit", *([] if "--labelled" in arguments else ["--labelled", "l.jsonl"]), *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_strange_text_reaches_neither_terminal_nor_encoder(tmp_path: Path) -> None:
    rows = [{"id": "\x1b[31mred", "gold": "4", "answer": "\ud800[bold]\n5" + "x" * 500, "label": True}]
    source = write(tmp_path / "l.jsonl", rows)
    done = subprocess.run(
        [sys.executable, "-m", "rlvr", "audit", "exact_match", "--labelled", str(source)], capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "[31mred" in done.stdout
    assert "\ufffd[bold]" in done.stdout and len(done.stdout) < 3000


@pytest.mark.parametrize(("name", "by", "floor"), [("equivalence_dev", "kind", 0.985), ("responses_dev", "form", 0.995)])
def test_the_math_verifier_can_be_audited_on_public_rows(data_dir: Path, tmp_path: Path, name: str, by: str, floor: float) -> None:
    rows = [json.loads(line) for line in (data_dir / "math" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()][::5]
    summary = tmp_path / "audit.json"
    result = rlvr("audit", "math", "--labelled", write(tmp_path / "l.jsonl", rows), "--by", by, "--json", summary, "--show", 0)
    assert result.exit_code in (0, 3), result.output  # 3: some gold answers of the sources are not formulas
    total = json.loads(summary.read_text())["total"]
    assert total["num_rows"] == len(rows) and total["accuracy"]["share"] >= floor
