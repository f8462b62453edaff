"""The implicit reward model: where it starts, what it learns from, and that its tokens' rewards point at what decides the outcome."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from rlvr.algorithm_settings import ImplicitRewardConfig
from rlvr.config import OptimizerConfig
from rlvr.credit import CreditedGroup
from rlvr.errors import ConfigError
from rlvr.exchange import WorkSplit
from rlvr.implicit_rewards import ImplicitRewardModel, ImplicitRewards
from rlvr.losses import ImplicitRewardObjective
from rlvr.policy.protocol import UpdateResult
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.rollouts.producer import ProducerCounts
from rlvr.rollouts.samples import policy_sample, written_sample
from rlvr.statistics import auc
from rlvr.step_metrics import step_metrics
from rlvr.trainer import StepResult
from rlvr.types import Completion, Prompt, Rollout, RolloutGroup
from tests.unit.policy_models import VOCABULARY, gradients, load, make_policy, minibatch
from verifiers.types import Problem, Verdict

LUCKY = 7
"""A completion is right if this token is in it."""


def rollout(score: float, tokens: list[int], written: tuple[bool, ...] = ()) -> Rollout:
    prompt = Prompt(Problem("p", ({"role": "user", "content": "?"},), {}), (3, 4, 5))
    completion = Completion("", tuple(tokens), (-1.0,) * len(tokens), "stop", 0, 0, written=written)
    return Rollout(prompt, completion, Verdict(score, "correct" if score >= 0.5 else "incorrect"))


def group_of(scored: list[tuple[float, list[int]]], index: int = 0) -> RolloutGroup:
    return RolloutGroup(index, tuple(rollout(score, tokens) for score, tokens in scored))


def drawn_groups(seed: int, num_groups: int = 4, size: int = 8) -> list[RolloutGroup]:
    draw = random.Random(seed)
    others = [token for token in range(8, VOCABULARY)]

    def one() -> tuple[float, list[int]]:
        tokens = draw.choices(others, k=draw.randint(3, 8))
        if draw.random() < 0.5:
            tokens[draw.randrange(len(tokens))] = LUCKY
        return float(LUCKY in tokens), tokens

    return [group_of([one() for _ in range(size)], index) for index in range(num_groups)]


def make_model(policy: TorchPolicy, *, tokens_per_microbatch: int = 10_000, **config) -> ImplicitRewardModel:
    split = WorkSplit(tokens_per_microbatch, share_prompts=True, hidden=32)
    return ImplicitRewardModel(policy, ImplicitRewardConfig(**config), split, device=torch.device("cpu"))


def reward_policy(rate: float = 1e-3, **options) -> TorchPolicy:
    return make_policy(optimizer=OptimizerConfig(learning_rate=rate, max_grad_norm=10.0), reference=True, **options)


def values(learned: ImplicitRewards) -> list[list[float]]:
    return [rewards.tolist() for group in learned.token_rewards for rewards in group]


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"dtype": "bfloat16"}, {"lora": {"rank": 4}}, {"attention": "padded"}], ids=str)
def test_the_first_rewards_are_exactly_zero_one_for_each_token(options: dict) -> None:
    groups = drawn_groups(0)
    learned = make_model(reward_policy(**options)).learn(groups)
    assert values(learned) == [[0.0] * rollout.completion.num_tokens for group in groups for rollout in group.rollouts]
    assert learned.update.loss == pytest.approx(0.693147, abs=1e-6)  # ln 2: neither right nor wrong.


def test_updated_before_the_first_rewards_know_the_steps_own_outcomes() -> None:
    groups = drawn_groups(0)
    before, after = make_model(reward_policy(), update="before"), make_model(reward_policy(), update="after")
    first = before.learn(groups)
    after.learn(groups)
    assert any(value != 0 for rewards in values(first) for value in rewards)
    assert values(after.learn(groups)) == values(first)  # One update later both have seen the same.


def test_rewards_are_the_scaled_log_ratio_to_the_start() -> None:
    groups, policy = drawn_groups(1), reward_policy()
    make_model(policy).learn(groups)
    samples = [written_sample(each.prompt.token_ids, each.completion) for each in groups[0].rollouts]
    pairs = list(zip(samples, policy.logprobs(samples), policy.logprobs(samples, reference=True), strict=True))
    rewards = values(make_model(policy, beta=0.5).learn(groups[:1]))
    for (sample, ours, start), reward in zip(pairs, rewards, strict=True):
        expected = [0.5 * (a - b) for a, b, scored in zip(ours, start, sample.loss_mask, strict=True) if scored]
        assert reward == pytest.approx(expected, abs=1e-5) and any(reward)


@pytest.mark.parametrize("budget", [1, 20, 60])
def test_the_gradient_does_not_depend_on_the_micro_batch_split(budget: int) -> None:
    policy = reward_policy()
    make_model(policy).learn(drawn_groups(0))  # Off the start, where every sequence has the same factor but for its sign.
    rollouts = [each for group in drawn_groups(2) for each in group.rollouts]
    samples = [policy_sample(each, (each.verdict.score,) * each.completion.num_written, group_index=0) for each in rollouts]

    def taken(tokens_per_microbatch: int) -> tuple[int, dict[str, torch.Tensor]]:
        packed = policy.annotate(minibatch(samples, tokens_per_microbatch=tokens_per_microbatch), old=False, reference=True)
        return len(packed.microbatches), gradients(policy, packed, ImplicitRewardObjective(0.5))

    (one, whole), (several, split) = taken(10_000), taken(budget)
    assert one == 1 < several
    scale = max(gradient.abs().max().item() for gradient in whole.values())
    assert all((split[name] - whole[name]).abs().max().item() < 1e-5 * scale for name in whole)


def test_tokens_that_the_policy_did_not_write_have_no_reward() -> None:
    group = RolloutGroup(0, (rollout(1.0, [8, 9, 10, 11], (True, False, False, True)), rollout(0.0, [12])))
    model = make_model(reward_policy(), update="before")
    assert [len(rewards) for rewards in model.learn([group]).token_rewards[0]] == [2, 1]


@pytest.mark.parametrize("score", [-1.0, 1.5, float("nan")])
def test_a_score_that_is_no_outcome_is_refused_by_its_value(score: float) -> None:
    with pytest.raises(ConfigError, match=f"scored a completion of problem 'p' with {score:g}"):
        make_model(reward_policy()).learn([group_of([(1.0, [8]), (score, [9])])])


def test_outcomes_alone_teach_which_token_decides() -> None:
    model = make_model(reward_policy(rate=2e-3), beta=0.5)
    for step in range(60):
        model.learn(drawn_groups(step))
    fresh = drawn_groups(1000, num_groups=16)
    learned = model.learn(fresh)
    rewards, lucky, others = {True: [], False: []}, [], []
    for group, of_group in zip(fresh, learned.token_rewards, strict=True):
        for each, own in zip(group.rollouts, of_group, strict=True):
            rewards[each.verdict.score == 1.0].append(float(own.sum()))
            for token, reward in zip(each.completion.token_ids, own.tolist(), strict=True):
                (lucky if token == LUCKY else others).append(reward)
    separation = auc(rewards[True], rewards[False])
    margin = sum(lucky) / len(lucky) - sum(others) / len(others)
    # Measured 2026-11-21: fresh completions separate perfectly, the deciding token has 1.93 and the others -0.21, the loss is 0.21.
    assert separation > 0.97
    assert 1.2 < margin < 3.2 and sum(lucky) / len(lucky) > 1 and sum(others) / len(others) < 0
    assert 0.1 < learned.update.loss < 0.4


def credited(group: RolloutGroup, rewards: tuple[float, ...]) -> CreditedGroup:
    scores = tuple(each.verdict.score for each in group.rollouts)
    return CreditedGroup(group, scores, scores, (), informative=True, implicit_rewards=rewards)


def test_the_metrics_of_a_step_count_signs_pairs_and_means() -> None:
    right, wrong, half = (1.0, [8]), (0.0, [9]), (0.5, [10])
    groups = (
        credited(group_of([right, wrong, wrong]), (0.4, -0.2, 0.4)),
        credited(group_of([right, right, half]), (-0.6, 0.0, -0.8)),
    )
    result = StepResult(
        step=1,
        groups=groups,
        staleness=(0,) * 6,
        updates=(UpdateResult(0.0, 1.0, 1e-3, {}),),
        dropped=ProducerCounts(0, 0, 0),
        kl_coefficient=0.0,
        rollout_seconds=1.0,
        update_seconds=1.0,
        implicit_update=UpdateResult(0.7, 2.0, 1e-6, {}),
    )
    metrics = {name: value for name, value in step_metrics(result).items() if name.startswith("implicit_reward/")}
    # Signs: 0.4 and -0.2 are as they should be, of six; half a score counts as right in these verdicts. Pairs: right and wrong in order,
    # right and wrong tied (0.5), and both rights above the half.
    assert metrics == pytest.approx(
        {
            "implicit_reward/loss": 0.7,
            "implicit_reward/grad_norm": 2.0,
            "implicit_reward/accuracy": 2 / 6,
            "implicit_reward/pair_accuracy": 3.5 / 4,
            "implicit_reward/mean_right": (0.4 - 0.6 + 0.0 - 0.8) / 4,
            "implicit_reward/mean_wrong": (-0.2 + 0.4) / 2,
        }
    )
    assert not any(name.startswith("implicit_reward/") for name in step_metrics(replace(result, implicit_update=None)))


def test_a_saved_model_goes_on_where_it_was(tmp_path) -> None:
    policy = reward_policy()
    model = make_model(policy)
    for step in range(3):
        model.learn(drawn_groups(step))
    policy.save(tmp_path)
    restored = TorchPolicy(load(), optimizer=OptimizerConfig(learning_rate=1e-3, max_grad_norm=10.0), reference=True)
    restored.load(tmp_path)
    again = make_model(restored)
    for step in range(3, 5):
        assert values(model.learn(drawn_groups(step))) == values(again.learn(drawn_groups(step)))
