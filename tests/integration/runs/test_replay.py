"""Groups that were dumped can be learned from again, and the learning is the same; sampling alone writes such groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.errors import DataError
from rlvr.rollout_only import roll_out
from rlvr.rollouts.group_file import read_groups
from rlvr.run import train
from tests.integration.runs.small_runs import small_run


def metrics_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@pytest.mark.parametrize("changes", [{}, {"batch": {"max_staleness": 1}}, {"algorithm": {"name": "remax", "kl": {}}}])
def test_a_replay_learns_bit_for_bit_what_the_run_learned(changes, tmp_path, tiny_model_folder):
    first = train(small_run(tmp_path, tiny_model_folder, rollouts={"dump": True}, **changes)).folder
    again = train(small_run(tmp_path, tiny_model_folder, name="again", rollouts={"replay": str(first / "groups")}, **changes)).folder
    assert metrics_of(first) == metrics_of(again)


def test_dynamic_sampling_is_replayed_without_what_it_dropped(tmp_path, tiny_model_folder):
    algorithm = {"name": "dapo", "kl": {}}
    first = train(small_run(tmp_path, tiny_model_folder, rollouts={"dump": True}, algorithm=algorithm)).folder
    again = train(
        small_run(tmp_path, tiny_model_folder, name="again", rollouts={"replay": str(first / "groups")}, algorithm=algorithm)
    ).folder
    learned = [[row.get(name) for name in ("policy/loss", "policy/grad_norm", "reward/mean")] for row in metrics_of(first)]
    assert learned == [[row.get(name) for name in ("policy/loss", "policy/grad_norm", "reward/mean")] for row in metrics_of(again)]


def test_sampling_alone_writes_the_groups_that_a_run_would_begin_with(tmp_path, tiny_model_folder):
    config = small_run(tmp_path, tiny_model_folder, rollouts={"dump": True}, num_steps=1)
    summary = roll_out(config, num_groups=6, output=tmp_path / "groups")
    sampled = list(read_groups(tmp_path / "groups"))
    assert summary.num_groups == 6 and [group.index for group in sampled] == list(range(6))
    trained = list(read_groups(train(config).folder / "groups"))
    tokens = [[rollout.completion.token_ids for rollout in group.rollouts] for group in sampled]
    assert tokens[:2] == [[rollout.completion.token_ids for rollout in group.rollouts] for group in trained]


def test_a_run_learns_from_what_was_sampled_alone_and_says_when_it_is_used_up(tmp_path, tiny_model_folder):
    roll_out(small_run(tmp_path, tiny_model_folder), num_groups=6, output=tmp_path / "groups")
    replay = {"replay": str(tmp_path / "groups")}
    rows = metrics_of(train(small_run(tmp_path, tiny_model_folder, rollouts=replay, num_steps=3)).folder)
    assert len(rows) == 4 and all(row["policy/grad_norm"] > 0 for row in rows[1:])
    with pytest.raises(DataError, match="its 6 groups are used up; lower num_steps"):
        train(small_run(tmp_path, tiny_model_folder, name="longer", rollouts=replay, num_steps=4))


def test_a_folder_that_is_no_dump_is_named(tmp_path, tiny_model_folder):
    with pytest.raises(DataError, match="is no folder of dumped groups"):
        train(small_run(tmp_path, tiny_model_folder, rollouts={"replay": str(tmp_path)}))


def test_the_command_prints_what_was_sampled(tmp_path, tiny_model_folder, capsys):
    import yaml

    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_run(tmp_path, tiny_model_folder).model_dump(mode="json")))
    with pytest.raises(SystemExit) as done:
        main(["rollout", str(path), "--groups", "4", "--output", str(tmp_path / "out")])
    assert done.value.code == 0
    assert "4 groups: mean score" in capsys.readouterr().out
