"""The arithmetic recipe with process rewards, from the warmed-up model on: solutions, labels, the model that judges, the policy."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.arithmetic_process_reward import config as recipe
from recipes.arithmetic_process_reward import process_reward_model
from recipes.preparation import judging_with
from rlvr.config import HeldOutConfig, RunConfig, TrackingConfig
from rlvr.run import train


def test_a_model_made_from_the_policys_own_solutions_scores_its_steps(prepared: RunConfig, tmp_path: Path) -> None:
    assert prepared.held_out.data is not None
    ready = prepared.model_copy(update={"tracking": TrackingConfig(sinks=[], rollouts_every=0)})
    model = process_reward_model(ready, tmp_path, num_solved=300, num_steps=40)
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    # Each solution three times: as it is, under a question with other digits, and with other digits; three tenths are right as they are.
    # Four digits of a question stay with a chance of 0.7 each, some fifteen of a solution with 0.9: of a quarter nothing is changed.
    own, misread, slipped = (sum(all(row["labels"]) for row in rows[first::3]) / len(rows[first::3]) for first in range(3))
    assert 500 < len(rows) / 3 <= 600
    assert 0.2 < own < 0.6 and 0.1 < misread / own < 0.4 and 0.1 < slipped / own < 0.4
    config = ready.model_copy(
        update={
            "name": "process",
            "runs_folder": str(tmp_path),
            "num_steps": 3,
            "algorithm": recipe.algorithm,
            "verifier": judging_with(recipe.verifier, model),
            "held_out": HeldOutConfig(data=prepared.held_out.data, every=0),
        }
    )
    train(config)
    steps = [json.loads(line) for line in (tmp_path / "process" / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in steps if "policy/grad_norm" in row]
    assert len(trained) == 3 and all(row["policy/grad_norm"] > 0 for row in trained)
    # The outcome's score is paid, and what the process reward model's worst step says stands beside it.
    assert all(row["verdict/audit"] == row["reward/mean"] and abs(row["verdict/audit_gap"]) < 1 for row in trained)
