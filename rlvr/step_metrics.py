"""The numbers of a step under the names of `rlvr.tracking.names`, and its rollouts as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

from rlvr.credit import CreditedGroup
from rlvr.policy.protocol import UpdateResult
from rlvr.tracking import names
from rlvr.tracking.rollout_table import RolloutRow
from rlvr.trainer import StepResult
from rlvr.types import Rollout

_STATS = {
    "entropy": names.ENTROPY,
    "approx_kl": names.APPROX_KL,
    "reference_kl": names.REFERENCE_KL,
    "clip_share": names.CLIP_SHARE,
    "ratio_max": names.RATIO_MAX,
    "cross_entropy": names.SUPERVISED_LOSS,
}
"""Statistics of the objective that have a documented name; others are reported as `policy/<name>`."""


def step_metrics(result: StepResult) -> dict[str, float]:
    """Everything `metrics.jsonl` says of a training step, held-out accuracy apart."""
    rollouts = [rollout for credited in result.groups for rollout in credited.group.rollouts]
    rewards = [reward for credited in result.groups for reward in credited.rewards]
    advantages = [advantage for credited in result.groups for advantage in credited.advantages]
    informative = fmean(credited.informative for credited in result.groups)
    num_tokens = sum(rollout.completion.num_tokens for rollout in rollouts)
    seconds = result.rollout_seconds + result.update_seconds
    metrics = {
        names.REWARD_MEAN: fmean(rewards),
        names.REWARD_STD: pstdev(rewards),
        names.ACCURACY: fmean(rollout.verdict.outcome == "correct" for rollout in rollouts),
        names.UNPARSEABLE_SHARE: fmean(rollout.verdict.outcome == "unparseable" for rollout in rollouts),
        names.TIMEOUT_SHARE: fmean(rollout.verdict.outcome == "timeout" for rollout in rollouts),
        names.INFORMATIVE_SHARE: informative,
        names.ZERO_VARIANCE_SHARE: 1 - informative,
        names.ZERO_ADVANTAGE_SHARE: fmean(advantage == 0 for advantage in advantages),
        names.DROPPED_UNINFORMATIVE: float(result.dropped.dropped_uninformative),
        names.DROPPED_FAILED: float(result.dropped.dropped_failed),
        names.MEAN_TOKENS: num_tokens / len(rollouts),
        names.TRUNCATED_SHARE: fmean(rollout.completion.finish_reason == "length" for rollout in rollouts),
        names.STALENESS_MEAN: fmean(result.staleness),
        names.STALENESS_MAX: float(max(result.staleness)),
        names.MIXED_VERSIONS_SHARE: fmean(r.completion.first_version != r.completion.last_version for r in rollouts),
        names.GROUPS_CUT: float(result.dropped.cut),
        names.KL_COEFFICIENT: result.kl_coefficient,
        names.STEP_SECONDS: seconds,
        names.ROLLOUT_SECONDS: result.rollout_seconds,
        names.UPDATE_SECONDS: result.update_seconds,
        names.TOKENS_PER_SECOND: num_tokens / seconds,
    }
    if result.sync_difference is not None:
        metrics[names.SYNC_DIFFERENCE] = result.sync_difference
    metrics |= _part_means(rollouts) | _value_metrics(result.groups) | _update_metrics(result.updates) | _implicit_metrics(result)
    if max(result.staleness) == 0 and "policy/behavior_gap" in metrics:
        # Fresh rollouts: engine and policy hold the same weights, so whatever lies between their log-probs is a fault.
        metrics[names.LOGPROB_DRIFT] = metrics["policy/behavior_gap"]
    return metrics


def _part_means(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """The mean of each part of the verdicts, over the completions that have it."""
    part_names = sorted({name for rollout in rollouts for name in rollout.verdict.parts})
    return {
        f"verdict/{name}": fmean(rollout.verdict.parts[name] for rollout in rollouts if name in rollout.verdict.parts)
        for name in part_names
    }


def _value_metrics(groups: Sequence[CreditedGroup]) -> dict[str, float]:
    """What the values of steps say and took; nothing where no group has them."""
    known = [credited.group.values for credited in groups if credited.group.values is not None]
    if not known:
        return {}
    steps = [each for of_group in known for each in of_group.steps]
    values = [value for each in steps for value in each.values]
    num_rollouts = sum(of_group.num_rollouts for of_group in known)
    metrics = {
        names.VALUE_STEPS: fmean(len(each.ends) for each in steps),
        names.VALUE_ROLLOUTS: float(num_rollouts),
        names.VALUE_TOKENS: float(sum(of_group.num_tokens for of_group in known)),
        names.VALUE_UNJUDGED: sum(of_group.num_unjudged for of_group in known) / max(num_rollouts, 1),
    }
    return metrics | ({names.VALUE_MEAN: fmean(values)} if values else {})


def _implicit_metrics(result: StepResult) -> dict[str, float]:
    """How well the implicit reward model tells right from wrong, by the rewards that the step used; nothing where there is none."""
    if result.implicit_update is None:
        return {}
    judged = [pair for credited in result.groups for pair in zip(credited.group.rollouts, credited.implicit_rewards, strict=True)]
    right = [reward for rollout, reward in judged if rollout.verdict.outcome == "correct"]
    wrong = [reward for rollout, reward in judged if rollout.verdict.outcome != "correct"]
    in_order = [
        0.5 if ours == theirs else float(ours > theirs)
        for credited in result.groups
        for better, ours in zip(credited.group.rollouts, credited.implicit_rewards, strict=True)
        for worse, theirs in zip(credited.group.rollouts, credited.implicit_rewards, strict=True)
        if better.verdict.score > worse.verdict.score
    ]
    metrics = {
        names.IMPLICIT_LOSS: result.implicit_update.loss,
        names.IMPLICIT_GRAD_NORM: result.implicit_update.grad_norm,
        names.IMPLICIT_ACCURACY: fmean([*(reward > 0 for reward in right), *(reward <= 0 for reward in wrong)]),
    }
    means = ((names.IMPLICIT_PAIR_ACCURACY, in_order), (names.IMPLICIT_MEAN_RIGHT, right), (names.IMPLICIT_MEAN_WRONG, wrong))
    return metrics | {name: fmean(values) for name, values in means if values}


def _update_metrics(updates: Sequence[UpdateResult]) -> dict[str, float]:
    """Means over the step's updates; the largest where a name ends in `_max`."""
    metrics = {
        names.LOSS: fmean(update.loss for update in updates),
        names.GRAD_NORM: fmean(update.grad_norm for update in updates),
        names.LEARNING_RATE: updates[-1].learning_rate,
    }
    for stat in sorted({stat for update in updates for stat in update.stats}):
        values = [update.stats[stat] for update in updates if stat in update.stats]
        metrics[_STATS.get(stat, f"policy/{stat}")] = max(values) if stat.endswith("_max") else fmean(values)
    return metrics


def rollout_rows(result: StepResult, decode: Callable[[Sequence[int]], str]) -> list[RolloutRow]:
    """One row per completion; `decode` turns prompt tokens into text."""
    return [row for credited in result.groups for row in _group_rows(result.step, credited, decode)]


def _group_rows(step: int, credited: CreditedGroup, decode: Callable[[Sequence[int]], str]) -> list[RolloutRow]:
    prompt = credited.group.rollouts[0].prompt
    prompt_text = decode(prompt.token_ids)
    return [
        RolloutRow(
            step=step,
            group_index=credited.group.index,
            problem_id=prompt.problem.id,
            prompt_text=prompt_text,
            completion_text=rollout.completion.transcript or rollout.completion.text,
            num_tokens=rollout.completion.num_tokens,
            finish_reason=rollout.completion.finish_reason,
            score=rollout.verdict.score,
            reward=reward,
            advantage=advantage,
            outcome=rollout.verdict.outcome,
            extracted=rollout.verdict.extracted,
            explanation=rollout.verdict.explanation,
            mean_logprob=sum(rollout.completion.logprobs) / rollout.completion.num_written,
            first_version=rollout.completion.first_version,
            last_version=rollout.completion.last_version,
        )
        for rollout, reward, advantage in zip(credited.group.rollouts, credited.rewards, credited.advantages, strict=True)
    ]
