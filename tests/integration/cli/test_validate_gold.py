"""`rlvr verify --validate`: which rows of a data set can never be rewarded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from rlvr.cli import app


def rlvr(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_gold_answers_that_all_earn_the_reward_give_status_0(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": answer} for answer in ("4", r"\frac{1}{2}", "(1, 2)", "x^2+1", 3.5)]
    result = rlvr("verify", "--validate", write(tmp_path / "train.jsonl", *rows))
    assert result.exit_code == 0, result.output
    assert "train.jsonl: 5 of 5 gold answers earn the reward of 'math'" in result.stderr
    assert "judging gold answers: 5" in result.stderr  # progress
    assert result.stdout == ""


@pytest.mark.parametrize("extraction", ["strict", "lenient", "tag", "boxed", "hash", "whole"])
def test_the_gold_answer_is_tried_in_the_form_that_the_extraction_reads(tmp_path: Path, extraction: str) -> None:
    source = write(tmp_path / "train.jsonl", {"question": "?", "answer": "4"}, {"question": "?", "answer": "Paris"})
    result = rlvr("verify", "--validate", source, "--verifier", "exact_match", f"extraction={extraction}")
    # `lenient` finds the last number or a tag; every form holds for text too.
    assert result.exit_code == 0, result.output


def test_rows_that_cannot_earn_are_listed_with_row_gold_and_reason(tmp_path: Path) -> None:
    rows = [
        {"id": "ok", "problem": "?", "answer": "4"},
        {"id": "words", "problem": "?", "answer": "[bold] " + "four " * 50},
        {"id": "null", "problem": "?", "answer": None},
        "{broken\n",
        {"id": "list", "problem": "?", "answer": ["4"]},
    ]
    output = tmp_path / "rejected.jsonl"
    result = rlvr("verify", "--validate", write(tmp_path / "t.jsonl", *rows), "--verifier", "numeric", "--output", output)
    assert result.exit_code == 3
    assert "note: data.fields.question=problem" in result.stderr
    assert "1 of 5 gold answers earn the reward of 'numeric'; 4 cannot (3 malformed, 1 error)" in result.stderr
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(row["row"], row["id"], row["outcome"]) for row in written] == [
        (2, "words", "error"),
        (3, None, "malformed"),
        (4, None, "malformed"),
        (5, "list", "malformed"),
    ]
    assert written[0]["gold"] == ("[bold] " + "four " * 50).strip() and "is not a number" in written[0]["explanation"]
    assert "field 'answer' is null" in written[1]["explanation"] and "is not JSON" in written[2]["explanation"]
    assert "[bold] four four" in result.stdout and "four " * 30 not in result.stdout  # shortened
    shown = rlvr("verify", "--validate", tmp_path / "t.jsonl", "--verifier", "numeric", "--show", 1)
    assert "malformed" not in shown.stdout and "3 more: --show 4 prints all" in shown.stdout


def test_a_gold_answer_that_its_verifier_rejects_is_listed_with_the_outcome(tmp_path: Path) -> None:
    # Half a box: no form of the answer gives the gold text back to `exact_match` in boxes alone.
    source = write(tmp_path / "t.jsonl", {"question": "?", "answer": "}{"}, {"question": "?", "answer": "{}"})
    result = rlvr("verify", "--validate", source, "--verifier", "exact_match", "--output", tmp_path / "out", "extraction=boxed")
    assert result.exit_code == 3
    [rejected] = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert (rejected["row"], rejected["gold"], rejected["outcome"]) == (1, "}{", "unparseable")


def test_settings_of_the_data_have_the_names_of_a_runs_settings(tmp_path: Path) -> None:
    rows = [{"q": "?", "worked": f"It is so.\n#### {n:,}"} for n in (1, 20, 3000)]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    fields = ["data.fields.question=q", "data.fields.answer=worked"]
    source = tmp_path / "train.parquet"
    result = rlvr("verify", "--validate", source, "--verifier", "numeric", *fields, r"data.answer_pattern=####\s*(.+)", "extraction=tag")
    assert result.exit_code == 0 and "3 of 3" in result.stderr and "note" not in result.stderr, result.output
    without_pattern = rlvr("verify", "--validate", source, "--verifier", "numeric", *fields, "data.limit=2")
    assert without_pattern.exit_code == 3 and "0 of 2" in without_pattern.stderr


def test_chat_turns_and_whole_references_are_found(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "?"}], "reference": {"answer": gold}} for gold in ("4", "x")]
    result = rlvr("verify", "--validate", write(tmp_path / "t.jsonl", *rows), "--verifier", "numeric")
    assert result.exit_code == 3 and "1 of 2 gold answers earn" in result.stderr
    assert "note: data.fields.messages=prompt" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--validate", "t.jsonl", "--verifier", "numric"], "did you mean 'numeric'"),
        (["--validate", "t.jsonl", "tolerence=1"], "did you mean 'tolerance'"),
        (["--validate", "t.jsonl", "other.jsonl"], "'other.jsonl' is not a setting"),
        (["--validate", "t.jsonl", "data.fields.anser=x"], "setting 'data.fields.anser'"),
        (
            ["--validate", "t.jsonl", "data.fields.question=text", "data.fields.answer=gold"],
            "no row has the field data.fields.answer=gold; there are 'text'",
        ),
        (
            ["--validate", "t.jsonl"],
            "no row has a field question, problem, prompt or messages; there are 'text': name data.fields.question",
        ),
        (["--validate", "empty.jsonl"], "empty.jsonl: it has no rows"),
        (["--validate", "broken.jsonl"], "broken.jsonl: row 1: is not JSON"),
        (["--validate", "missing.jsonl"], "there is no file 'missing.jsonl'"),
        (["t.jsonl", "--verifier", "numeric"], "missing --output OUT.jsonl; write rlvr verify INPUT.jsonl"),
        ([], "missing INPUT.jsonl, --verifier NAME, --output OUT.jsonl"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.jsonl", {"text": "x"})
    write(tmp_path / "empty.jsonl")
    write(tmp_path / "broken.jsonl", "{broken\n")
    result = rlvr("verify", *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], result.stderr


def test_validating_loads_no_model_library(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", {"question": "?", "answer": "4"})
    program = (
        "import sys\nfrom rlvr.cli import main\n"
        "try: main(['verify', '--validate', 't.jsonl'])\n"
        "except SystemExit as done: print(done.code, [name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.strip() == "0 []", done.stderr


@pytest.mark.parametrize("name", ["gsm8k_test", "math500", "aime24", "amc23", "olympiadbench"])
def test_every_gold_answer_of_the_benchmarks_earns_the_reward_of_math(data_dir: Path, name: str) -> None:
    result = rlvr("verify", "--validate", data_dir / "math" / f"{name}.jsonl")
    assert result.exit_code == 0, result.output
