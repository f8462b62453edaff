from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rlvr.config import DataConfig, HeldOutConfig
from rlvr.data.split import question_key, split_held_out
from rlvr.errors import ConfigError, DataError
from verifiers.types import Problem


def ask(id: str, question: str) -> Problem:
    return Problem(id, ({"role": "user", "content": question},), {"answer": "1"})


TWENTY = [ask(str(n), f"What is {n}?") for n in range(20)]


def ids(problems: list[Problem]) -> set[str]:
    return {problem.id for problem in problems}


def test_nothing_is_held_out_unless_asked_for() -> None:
    split = split_held_out(TWENTY, HeldOutConfig(), seed=0)
    assert (split.train, split.held_out, split.num_leaking) == (TWENTY, [], 0)


def test_exactly_as_many_problems_are_held_out_and_none_is_on_both_sides() -> None:
    split = split_held_out(TWENTY, HeldOutConfig(num_problems=5), seed=0)
    assert len(split.held_out) == 5 and len(split.train) == 15 and split.num_leaking == 0
    assert ids(split.train) | ids(split.held_out) == ids(TWENTY)


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    held_out = HeldOutConfig(num_problems=5)
    shuffled = random.Random(0).sample(TWENTY, 20)
    first = ids(split_held_out(TWENTY, held_out, seed=0).held_out)
    assert ids(split_held_out(shuffled, held_out, seed=0).held_out) == first
    # Two seeds choose the same 5 of 20 once in 15504 times.
    assert ids(split_held_out(TWENTY, held_out, seed=1).held_out) != first


def test_a_question_asked_twice_never_straddles_the_split() -> None:
    again = [ask(f"{p.id} again", p.messages[0]["content"].upper().replace(" ", "\n ")) for p in TWENTY]
    split = split_held_out([*TWENTY, *again], HeldOutConfig(num_problems=5), seed=0)
    # 5 questions held out once each; their 5 repetitions are in neither part.
    assert len(split.held_out) == 5 and len(split.train) == 30 and split.num_leaking == 5
    assert not {question_key(p) for p in split.train} & {question_key(p) for p in split.held_out}


def test_punctuation_tells_questions_apart() -> None:
    assert question_key(ask("a", "1+2=")) != question_key(ask("b", "1-2="))


@pytest.fixture
def separate(tmp_path: Path) -> DataConfig:
    path = tmp_path / "held_out.jsonl"
    questions = ["what  is 3?", "What is 4?", "What is 100?"]
    path.write_text("\n".join(json.dumps({"question": question, "answer": "1"}) for question in questions))
    return DataConfig(path=str(path))


def test_questions_of_separate_held_out_data_leave_the_training_data(separate: DataConfig) -> None:
    split = split_held_out(TWENTY, HeldOutConfig(data=separate), seed=0)
    assert len(split.held_out) == 3 and split.num_leaking == 2
    assert ids(TWENTY) - ids(split.train) == {"3", "4"}


def test_a_number_takes_that_many_of_separate_data(separate: DataConfig) -> None:
    assert len(split_held_out(TWENTY, HeldOutConfig(data=separate, num_problems=2), seed=0).held_out) == 2


def test_holding_out_more_than_there_is_or_all_of_it_is_an_error() -> None:
    with pytest.raises(ConfigError, match="num_problems=21, but there are only 20 different questions"):
        split_held_out(TWENTY, HeldOutConfig(num_problems=21), seed=0)
    with pytest.raises(DataError, match="all 20 training problems are held out"):
        split_held_out(TWENTY, HeldOutConfig(num_problems=20), seed=0)
