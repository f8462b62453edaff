"""VinePPO in whole runs: values are what the policy can expect, steps are credited by them, and a run repeats, resumes and replays."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from rlvr.credit import credit_groups
from rlvr.engines.transformers import TransformersEngine
from rlvr.errors import ConfigError, TooManyVerifierFailures
from rlvr.rollout_only import roll_out
from rlvr.rollouts.group_file import group_from_record, group_record, read_groups
from rlvr.run import train
from rlvr.types import Completion, RolloutGroup, Sampling
from tests.conftest import save_tiny_model
from tests.integration.runs.small_runs import small_run
from tests.integration.runs.test_replay import metrics_of
from tests.integration.runs.test_resume import assert_same_run, run_whole_and_in_parts
from verifiers.errors import VerifierError
from verifiers.types import Problem, Response, Verdict

NUM_ROLLOUTS = 4


def score_of(text: str) -> float:
    return min(text.count("a."), 4) / 4


@dataclass(frozen=True, slots=True)
class Sentences:
    """Scores a response by its sentences that end with an a; four are enough."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(score_of(response.text), "partial") for response in responses]


ASKED: list[str] = []
JUDGED: list[str] = []
"""The problems whose responses `Unhurried` was asked to judge, and has judged, in order."""


@dataclass(frozen=True, slots=True)
class Unhurried:
    """Scores as `Sentences`, after a time that is another one in every run, and long for the first it is asked."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        ASKED.append(problem.id)
        await asyncio.sleep(0.2 if len(ASKED) == 1 else random.Random(time.perf_counter_ns()).uniform(0, 0.01))
        JUDGED.append(problem.id)
        return await Sentences()(problem, responses)


@dataclass(frozen=True, slots=True)
class OneOrNothing:
    """Scores every response 1.0, and fails as soon as one has two b in a row."""

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        if any("bb" in response.text for response in responses):
            raise VerifierError("two b in a row")
        return [Verdict(1.0, "correct") for _ in responses]


@dataclass(slots=True)
class OncePerProblem:
    """Judges the first responses to a problem and no others."""

    known: set[str] = field(default_factory=set)

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        if problem.id in self.known:
            raise VerifierError("I have seen enough of this problem")
        self.known.add(problem.id)
        return [Verdict(0.5, "partial") for _ in responses]


DRAWN: list[tuple[tuple[int, ...], int | None]] = []
"""What `Recording` was asked to continue, and with which seed."""


class Recording(TransformersEngine):
    """The engine, which remembers what it was asked for."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> list[Completion]:
        DRAWN.append((tuple(token_ids), sampling.seed))
        return await super().generate(token_ids, sampling)


@pytest.fixture(scope="module")
def few_letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that writes nothing but a, b, full stops and special tokens."""
    folder = tmp_path_factory.mktemp("few_letters")
    save_tiny_model(folder, tied=False, characters=["a", "b", "."], initializer_range=0.05, seed=11)
    return folder


def vine_run(folder: Path, model: Path, /, **changes):
    problems = folder / "problems.jsonl"
    letters = [f"{number:06b}".replace("0", "a").replace("1", "b") for number in range(40)]
    problems.write_text("".join(json.dumps({"question": question, "answer": "a"}) + "\n" for question in letters))
    vine = {"separator": ".", "num_rollouts": NUM_ROLLOUTS}
    algorithm = {"name": "vineppo", "kl": {"coefficient": 0.0}, "vine": vine} | changes.pop("algorithm", {})
    settings = {
        "verifier": {"name": f"{__name__}:Sentences"},
        "algorithm": algorithm,
        "data": {"plain_template": "{question}"},
        "sampling": {"max_new_tokens": 24},
    }
    return small_run(folder, model, **(settings | changes))


def states_of(group: RolloutGroup) -> Iterator[tuple[tuple[int, ...], float]]:
    """The tokens before each step but the first, with their value."""
    assert group.values is not None
    for rollout, steps in zip(group.rollouts, group.values.steps, strict=True):
        assert steps.ends[-1] == rollout.completion.num_tokens and list(steps.ends) == sorted(set(steps.ends))
        for end, value in zip(steps.ends, steps.values, strict=False):
            yield rollout.completion.token_ids[:end], value


class Expectation:
    """What a model is expected to score from a state: the sum over everything it can write, weighed by its probability."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def moments(self, prompt: tuple[int, ...], prefix: tuple[int, ...], room: int) -> tuple[float, float]:
        """Mean and standard deviation of the score, with `room` more tokens."""
        open_, mean, square = {prefix: 1.0}, 0.0, 0.0
        for left in range(room, 0, -1):
            logits = self._model(torch.tensor([prompt + written for written in open_])).logits[:, -1]
            following: dict[tuple[int, ...], float] = {}
            for (written, chance), row in zip(open_.items(), torch.softmax(logits, -1).tolist(), strict=True):
                for token, probability in enumerate(row):
                    if token == self._tokenizer.eos_token_id or left == 1:
                        score = score_of(self._tokenizer.decode([*written, token], skip_special_tokens=True))
                        mean, square = mean + chance * probability * score, square + chance * probability * score**2
                    else:
                        following[(*written, token)] = chance * probability
            open_ = following
        return mean, max(square - mean**2, 0.0) ** 0.5


def test_a_value_is_the_expectation_of_the_score_within_its_error(tmp_path, few_letters):
    vine = {"separator": ".", "num_rollouts": 64}
    config = vine_run(tmp_path, few_letters, sampling={"max_new_tokens": 7}, algorithm={"vine": vine}, model={"dtype": "float32"})
    roll_out(config, num_groups=150, output=tmp_path / "groups")
    expected = Expectation(few_letters)
    distances = []
    for group in read_groups(tmp_path / "groups"):
        for prefix, value in dict(states_of(group)).items():
            if len(prefix) >= 3:  # The sum over all that can follow fewer tokens has too many terms.
                mean, deviation = expected.moments(group.rollouts[0].prompt.token_ids, prefix, 7 - len(prefix))
                if deviation > 1e-3:
                    distances.append((value - mean) / (deviation / 64**0.5))
                else:  # The score cannot change any more.
                    assert value == pytest.approx(mean, abs=1e-6)
    # In standard errors the distances of a true estimate have a mean of 0 and a mean square of 1.
    count = len(distances)
    assert count >= 50 and max(map(abs, distances)) < 4
    assert abs(sum(distances) / count) < 3 / count**0.5
    assert 0.5 < sum(distance**2 for distance in distances) / count < 1.7


def test_equal_beginnings_share_a_value_and_the_cost_is_counted(tmp_path, few_letters):
    config = vine_run(tmp_path, few_letters, rollouts={"dump": True}, num_steps=3)
    run = train(config).folder
    groups = list(read_groups(run / "groups"))
    for group in groups:
        shared: dict[tuple[int, ...], set[float]] = {}
        for prefix, value in states_of(group):
            shared.setdefault(prefix, set()).add(value)
        assert all(len(values) == 1 for values in shared.values())
        assert group.values.num_rollouts == NUM_ROLLOUTS * len(shared) and group.values.num_unjudged == 0
        assert group.values.num_tokens <= sum(NUM_ROLLOUTS * (24 - len(prefix)) for prefix in shared)
    assert sum(len(steps.values) for group in groups for steps in group.values.steps) > 6
    for row, step in zip(metrics_of(run)[1:], (groups[:2], groups[2:4], groups[4:]), strict=True):
        assert row["values/rollouts"] == sum(group.values.num_rollouts for group in step)
        assert row["values/tokens"] == sum(group.values.num_tokens for group in step)
        assert row["values/mean_steps"] == sum(len(steps.ends) for group in step for steps in group.values.steps) / 8
        values = [value for group in step for steps in group.values.steps for value in steps.values]
        assert row.get("values/mean") == (pytest.approx(sum(values) / len(values)) if values else None)


def test_every_beginning_is_continued_by_a_draw_of_its_own(tmp_path, few_letters):
    DRAWN.clear()
    config = vine_run(tmp_path, few_letters, engine={"name": f"{__name__}:Recording"})
    roll_out(config, num_groups=6, output=tmp_path / "groups")
    beginnings = {
        (*group.rollouts[0].prompt.token_ids, *prefix) for group in read_groups(tmp_path / "groups") for prefix, _ in states_of(group)
    }
    seeds = [seed for token_ids, seed in DRAWN if token_ids in beginnings]
    assert len(seeds) == len(beginnings) > 20
    assert None not in seeds and len(set(seeds)) == len(seeds)


def test_tokens_are_credited_with_the_gain_of_their_step(tmp_path, few_letters):
    config = vine_run(
        tmp_path,
        few_letters,
        algorithm={"batch_scaling": "none"},
    )
    roll_out(config, num_groups=12, output=tmp_path / "groups")
    groups = list(read_groups(tmp_path / "groups"))
    several = 0
    for group in credit_groups(groups, config.algorithm, policy=None, kl_coefficient=0.0, max_new_tokens=24):
        for number, (rollout, sample, steps) in enumerate(zip(group.group.rollouts, group.samples, group.group.values.steps, strict=True)):
            siblings = [reward for place, reward in enumerate(group.rewards) if place != number]
            states = [sum(siblings) / len(siblings), *steps.values, rollout.verdict.score]
            credit, first = sample.advantages[len(rollout.prompt.token_ids) :], 0
            for step, end in enumerate(steps.ends):
                assert credit[first:end] == pytest.approx([states[step + 1] - states[step]] * (end - first), abs=1e-6)
                first = end
            assert first == len(credit)
            several += len(steps.ends) > 1
    assert several > 15  # Of 48 completions.


def test_learning_raises_the_reward(tmp_path, few_letters):
    """A quarter of the sentences by chance, all of them after ten steps. Measured 2026-11-21: 0.26 -> 1.0."""
    changes = {"num_steps": 15, "batch": {"prompts_per_step": 4, "group_size": 8}, "held_out": {"every": 0}, "checkpoint": {"every": 0}}
    changes |= {"optimizer": {"learning_rate": 3e-3}}
    rows = metrics_of(train(vine_run(tmp_path, few_letters, **changes)).folder)
    assert rows[1]["reward/mean"] < 0.35 and rows[-1]["reward/mean"] > 0.9
    assert rows[-1]["values/mean_steps"] > 3


@pytest.mark.parametrize("changes", [{}, {"batch": {"max_staleness": 1}}, {"batch": {"minibatches_per_step": 2}}])
def test_a_replay_credits_the_same_steps(changes, tmp_path, few_letters):
    first = train(vine_run(tmp_path, few_letters, rollouts={"dump": True}, **changes)).folder
    again = train(vine_run(tmp_path, few_letters, name="again", rollouts={"replay": str(first / "groups")}, **changes)).folder
    assert metrics_of(first) == metrics_of(again)


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, few_letters):
    _, run = run_whole_and_in_parts(lambda name: vine_run(tmp_path, few_letters, name=name))
    assert sum(row["values/rollouts"] for row in metrics_of(run)[1:]) > 8 * NUM_ROLLOUTS


def test_what_a_verifier_takes_its_time_for_changes_nothing(tmp_path, few_letters):
    changes = {
        "verifier": {"name": f"{__name__}:Unhurried"},
        "batch": {"prompts_per_step": 4},
        "num_steps": 3,
        "held_out": {"num_problems": None},
    }
    runs = []
    for name in ("one", "other"):
        ASKED.clear()
        JUDGED.clear()
        runs.append(train(vine_run(tmp_path, few_letters, name=name, **changes)).folder)
        # All groups of a step are judged before the first of them asks for values: their rollouts are decoded together.
        assert len(set(JUDGED[:4])) == 4 and len(JUDGED) > 12
    assert_same_run(*runs, step=3)


def test_a_group_waiting_in_a_checkpoint_keeps_its_values(tmp_path, few_letters):
    roll_out(vine_run(tmp_path, few_letters), num_groups=3, output=tmp_path / "groups")
    for group in read_groups(tmp_path / "groups"):
        record = json.loads(json.dumps(group_record(group)))
        assert group_from_record(record, group.rollouts[0].prompt) == group
        del record["values"]  # As groups were written before there were values.
        assert group_from_record(record, group.rollouts[0].prompt).values is None


def test_groups_dumped_without_values_cannot_be_replayed_for_them(tmp_path, few_letters):
    plain = {"name": "grpo", "vine": {}}
    roll_out(vine_run(tmp_path, few_letters, algorithm=plain), num_groups=4, output=tmp_path / "groups")
    with pytest.raises(ConfigError, match="was sampled without them: dump groups with the advantage"):
        train(vine_run(tmp_path, few_letters, rollouts={"replay": str(tmp_path / "groups")}, num_steps=1))


def test_a_rollout_that_cannot_be_judged_is_in_no_value(tmp_path, few_letters):
    changes = {"verifier": {"name": f"{__name__}:OneOrNothing"}, "batch": {"group_size": 2}}
    config = vine_run(tmp_path, few_letters, algorithm={"vine": {"separator": ".", "num_rollouts": 16}}, **changes)
    summary = roll_out(config, num_groups=30, output=tmp_path / "groups")
    groups = list(read_groups(tmp_path / "groups"))
    values = [value for group in groups for _, value in states_of(group)]
    assert summary.num_failed > 0 and len(values) > 10
    # Every judged rollout scored 1: had one that was not judged counted as 0, a value would be lower.
    assert set(values) == {1.0}
    assert sum(group.values.num_unjudged for group in groups) > 10


def test_a_state_of_which_nothing_can_be_judged_drops_its_group(tmp_path, few_letters):
    with pytest.raises(TooManyVerifierFailures, match=f"none of the {NUM_ROLLOUTS} rollouts from the first .* could be judged"):
        train(vine_run(tmp_path, few_letters, verifier={"name": f"{__name__}:OncePerProblem"}, held_out={"num_problems": None}))
