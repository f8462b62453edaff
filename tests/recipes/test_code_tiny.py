"""The tiny code recipe: specifications mean what their demonstrations do, tests tell them apart, and it trains on real containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.code_tiny import Specification, specifications
from recipes.code_tiny_grpo import config


def test_splits_are_disjoint_and_reproducible() -> None:
    splits = {split: specifications(split, seed=0) for split in ("train", "validation", "held_out")}
    texts = [each.text for found in splits.values() for each in found]
    assert len(texts) == len(set(texts)) > 5000
    assert len(splits["held_out"]) >= 500 and len(splits["validation"]) >= 256
    assert specifications("train", seed=0) == splits["train"]
    assert [each.text for each in specifications("train", seed=1)] != [each.text for each in splits["train"]]


def test_every_demonstration_does_what_its_specification_says() -> None:
    for each in specifications("held_out", seed=0) + specifications("validation", seed=0):
        namespace: dict = {}
        exec(each.demonstration, namespace)  # Written by the recipe itself.
        for case in each.tests()["cases"]:
            assert namespace["f"](*case["args"]) == case["expected"], each.text


def test_tests_tell_functions_apart() -> None:
    """Of all the held-out specifications at most a few share all their expected results, such as counts, for which the change is idle."""
    found = [each for each in specifications("held_out", seed=0) if each.result.text != "count"]
    by_results: dict[str, list[Specification]] = {}
    for each in found:
        by_results.setdefault(json.dumps([case["expected"] for case in each.tests()["cases"]]), []).append(each)
    assert len(by_results) > 0.97 * len(found)


@pytest.mark.docker
def test_two_steps_with_rewards_from_containers(tmp_path: Path) -> None:
    import rlvr.run
    from recipes.arithmetic import build_model, build_tokenizer
    from sandbox.docker_engine import connect
    from sandbox.errors import SandboxUnavailable

    try:
        connect(timeout_seconds=10).close()
    except SandboxUnavailable as error:
        pytest.skip(f"docker: {error}")
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"question": each.text, "reference": {"tests": each.tests()}} for each in specifications("train", seed=0)[:32]]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = config.model_copy(
        update={
            "name": "tiny",
            "runs_folder": str(tmp_path),
            "num_steps": 2,
            "num_threads": 1,
            "model": config.model.model_copy(update={"path": str(tmp_path / "model")}),
            "data": config.data.model_copy(update={"path": str(tmp_path / "train.jsonl")}),
            "held_out": config.held_out.model_copy(update={"every": 0, "data": None}),
            "batch": config.batch.model_copy(update={"prompts_per_step": 4, "group_size": 2}),
            "sampling": config.sampling.model_copy(update={"max_new_tokens": 24}),
            "guards": config.guards.model_copy(update={"max_truncated_share": 1.0}),
        }
    )
    rlvr.run.train(small, resume=None)
    steps = [row for line in (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines() if (row := json.loads(line))["step"] > 0]
    # What an untrained model writes is no Python, and every verdict comes from a container that tried to run it.
    assert len(steps) == 2 and all(row["verdict/total"] == 6.0 and row["verdict/passed"] == 0.0 for row in steps)
    assert all(row["verdict/compile_error"] > 0.5 for row in steps)
