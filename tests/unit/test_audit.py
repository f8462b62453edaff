"""The audit's arithmetic, worked out by hand, and what a labelled line may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlvr.audit import Audit, Check, audit_verifier, summarise
from rlvr.errors import DataError
from rlvr.labelled import NO_GROUP, LabelledRow, read_labelled
from rlvr.response_lines import WrittenResponse
from rlvr.statistics import Share
from rlvr.tracking.progress import open_progress
from rlvr.verify_file import VerifyJob
from verifiers.types import Outcome, Problem, Verdict


def check(label: bool | None, outcome: Outcome | None, *, group: str = "integer", seconds: float = 0.001) -> Check:
    row = LabelledRow({}, Problem("p", (), {"answer": "1"}), WrittenResponse("1", "stop", 1), label, group)
    return Check(row, None if outcome is None else Verdict(float(outcome == "correct"), outcome), "", seconds)


def audited(folder: Path, *records: object, verifier: str = "exact_match", by: str = "kind", **options: object) -> Audit:
    rows = read_labelled(write(folder, *records), by)
    with open_progress("audit") as progress:
        return audit_verifier(rows, VerifyJob(verifier, options, concurrency=1), progress)


def write(folder: Path, *records: object) -> Path:
    path = folder / "labelled.jsonl"
    path.write_text("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_false_positives_are_shares_of_the_false_rows_and_false_negatives_of_the_true_ones() -> None:
    # True rows: 3 of 4 accepted. False rows: 1 of 5 accepted. Right: 3 + 4 of 9.
    true = [check(True, outcome) for outcome in ("correct", "correct", "correct", "incorrect")]
    false = [check(False, outcome) for outcome in ("correct", "incorrect", "incorrect", "unparseable", "partial")]
    total = summarise(true + false).total
    assert (total.accuracy, total.false_positives, total.false_negatives) == (Share(7, 9), Share(1, 5), Share(1, 4))
    assert total.outcomes["unparseable"] == 1 and total.num_errors == 0


def test_what_could_not_be_judged_is_not_right_and_not_accepted() -> None:
    audit = summarise([check(True, None), check(False, None), check(True, "correct"), check(False, "incorrect")])
    # Right are the two that were judged; the false row was not accepted, the true one was not either.
    assert audit.total.accuracy == Share(2, 4)
    assert (audit.total.false_positives, audit.total.false_negatives) == (Share(0, 2), Share(1, 2))
    assert audit.num_errors == audit.total.num_errors == 2 == len(audit.disagreements)


def test_undecided_rows_are_judged_but_not_scored() -> None:
    audit = summarise([check(True, "correct"), check(None, "correct"), check(None, "incorrect"), check(None, None)])
    assert audit.total.accuracy == Share(1, 1) and list(audit.groups) == ["integer"]
    assert (audit.num_undecided, audit.num_undecided_accepted, audit.num_errors) == (3, 1, 1)
    assert [c.verdict for c in audit.disagreements] == [None]  # only what could not be judged


def test_groups_come_largest_first_and_add_up() -> None:
    checks = [check(True, "correct", group=group) for group in "bacbc"] + [check(False, "correct", group="a")]
    audit = summarise(checks)
    assert list(audit.groups) == ["a", "b", "c"]  # two of each: by name
    assert sum(scores.accuracy.count for scores in audit.groups.values()) == audit.total.accuracy.count == 5
    assert audit.groups["a"].false_positives == Share(1, 1) and audit.groups["b"].false_positives == Share(0, 0)
    assert list(summarise([*checks, check(True, "correct", group="c")]).groups) == ["c", "a", "b"]


def test_latencies_are_those_of_single_checks() -> None:
    # 200 checks of 1 ms to 200 ms: the nearest ranks are the 100th and the 198th.
    latency = summarise([check(True, "correct", seconds=count / 1000) for count in range(1, 201)]).latency
    assert (latency.p50, latency.p99, latency.longest, latency.first) == (0.1, 0.198, 0.2, 0.001)


def test_a_bare_answer_is_judged_as_the_whole_answer(tmp_path: Path) -> None:
    records = [
        {"gold": "4", "answer": "4", "label": True},
        {"gold": "4", "answer": "4 or 5", "label": False},
        {"gold": 4, "answer": 4, "label": True},
        {"reference": {"answer": "4"}, "response": "So <answer>4</answer>", "label": True, "answer": None},
    ]
    audit = audited(tmp_path, *records)
    assert audit.total.accuracy == Share(4, 4)
    assert list(audit.groups) == [NO_GROUP]


def test_options_reach_the_verifier_and_a_disagreement_keeps_its_verdict(tmp_path: Path) -> None:
    records = [{"id": "x", "gold": "Paris", "answer": "PARIS", "label": True, "kind": "text"}]
    strict, lenient = audited(tmp_path, *records), audited(tmp_path, *records, ignore_case=True)
    assert lenient.total.accuracy == Share(1, 1) and lenient.disagreements == ()
    [disagreement] = strict.disagreements
    assert disagreement.row.problem.id == "x" and disagreement.verdict is not None and disagreement.verdict.extracted == "PARIS"


def test_a_gold_answer_that_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    audit = audited(
        tmp_path, {"gold": "x+1", "answer": "2", "label": False}, {"gold": "2", "answer": "2", "label": True}, verifier="numeric"
    )
    assert audit.num_errors == 1 and audit.total.accuracy == Share(1, 2)
    assert "'x+1' is not a number" in audit.disagreements[0].error


def test_the_question_is_passed_on_where_a_row_has_one(tmp_path: Path) -> None:
    more = {"gold": "2", "answer": "2", "label": True}
    path = write(
        tmp_path, {**more, "problem": "1+1?"}, {**more, "problem": None}, {**more, "messages": [{"role": "user", "content": "hi"}]}
    )
    assert [[message["content"] for message in row.problem.messages] for row in read_labelled(path, "kind")] == [["1+1?"], [], ["hi"]]
    assert [row.problem.id for row in read_labelled(path, "kind")] == ["1", "2", "3"]  # without an id: the line


def test_tags_choose_the_verifier(tmp_path: Path) -> None:
    # 4.0 is the number 4, but not the same text.
    rows = [{"gold": "4", "answer": "4.0", "label": True, "tags": tags} for tags in ("number", ["other", "text"])]
    routes = [{"tag": "number", "verifier": "numeric"}, {"tag": "text", "verifier": "exact_match"}]
    audit = audited(tmp_path, *rows, verifier="by_tag", routes=routes)
    assert audit.total.false_negatives == Share(1, 2) and audit.num_errors == 0
    assert audit.disagreements[0].row.problem.tags == ("other", "text")


ROW = {"gold": "4", "answer": "4", "label": True}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken\n", "line 2: not JSON"),
        ("[1]\n", "line 2: not a JSON object"),
        ({"gold": "4", "answer": "4"}, "line 2: the field \"label\" is missing (true, false or null); there are 'gold', 'answer'"),
        ({**ROW, "label": 1}, 'line 2: "label" must be true, false or null, got 1'),
        ({**ROW, "label": "true"}, "line 2: \"label\" must be true, false or null, got 'true'"),
        ({"answer": "4", "label": True}, 'line 2: give either "gold" (the right answer) or "reference"'),
        ({**ROW, "reference": {"answer": "4"}}, 'line 2: give either "gold" (the right answer) or "reference"'),
        ({**ROW, "gold": ["4"]}, "line 2: \"gold\" must be text or a number, got ['4']"),
        ({"reference": "4", "answer": "4", "label": True}, "line 2: \"reference\" must be an object, got '4'"),
        ({"gold": "4", "label": True}, 'line 2: give either "response" (a whole response) or "answer"'),
        ({**ROW, "response": "4"}, 'line 2: give either "response" (a whole response) or "answer"'),
        ({**ROW, "finish_reason": "eos"}, 'line 2: "finish_reason" must be one of'),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read_labelled(write(tmp_path, ROW, line), "kind")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("records", "by", "message"),
    [
        ([], "kind", "it has no rows"),
        ([{**ROW, "label": None}], "kind", 'every "label" is null'),
        ([ROW], "sorce", "no row has a field \"sorce\" to group by (--by sorce); the first has 'gold', 'answer', 'label'"),
    ],
)
def test_a_file_with_nothing_to_score_is_refused(tmp_path: Path, records: list[object], by: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read_labelled(write(tmp_path, *records), by)
    assert message in str(raised.value)
