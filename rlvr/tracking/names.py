"""The names under which a run reports its numbers, with what each means. `docs/metrics.md` explains them at length.

Names are `group/what`. Everything that depends on the wall clock stands under `time/`, so that two runs can be compared bit for bit
without it.
"""

from __future__ import annotations

from dataclasses import dataclass

TIME_PREFIX = "time/"
EVALUATION_PREFIX = "eval/"
"""Benchmarks while a run trains: `eval/<suite>/<benchmark>/<what>`."""

REWARD_MEAN = "reward/mean"
REWARD_STD = "reward/std"
ACCURACY = "accuracy/train"
UNPARSEABLE_SHARE = "verdict/unparseable_share"
TIMEOUT_SHARE = "verdict/timeout_share"
AUDIT = "verdict/audit"
AUDIT_GAP = "verdict/audit_gap"
AUDITED_SHARE = "verdict/audited"
INFORMATIVE_SHARE = "groups/informative_share"
ZERO_VARIANCE_SHARE = "groups/zero_variance_share"
KL_COEFFICIENT = "policy/kl_coefficient"
DROPPED_UNINFORMATIVE = "groups/dropped_uninformative"
DROPPED_FAILED = "groups/dropped_failed"
ZERO_ADVANTAGE_SHARE = "advantage/zero_share"
MEAN_TOKENS = "completion/mean_tokens"
TRUNCATED_SHARE = "completion/truncated_share"
ENTROPY = "policy/entropy"
APPROX_KL = "policy/approx_kl"
REFERENCE_KL = "policy/reference_kl"
CLIP_SHARE = "policy/clip_share"
GRAD_NORM = "policy/grad_norm"
LOSS = "policy/loss"
LEARNING_RATE = "policy/learning_rate"
RATIO_MAX = "policy/ratio_max"
LOGPROB_DRIFT = "engine/logprob_drift"
SYNC_DIFFERENCE = "engine/sync_difference"
CORRECTION_WEIGHT = "policy/correction_weight"
CORRECTION_WEIGHT_MAX = "policy/correction_weight_max"
CORRECTION_OUTSIDE_SHARE = "policy/correction_outside_share"
GROUPS_CUT = "groups/cut"
MIXED_VERSIONS_SHARE = "staleness/mixed_versions_share"
STALENESS_MEAN = "staleness/mean"
STALENESS_MAX = "staleness/max"
GREEDY_ACCURACY = "held_out/greedy_accuracy"
SAMPLED_ACCURACY = "held_out/sampled_accuracy"
HELD_OUT_FAILED = "held_out/num_failed"
HELD_OUT_TOKENS = "held_out/mean_tokens"
HELD_OUT_TRUNCATED = "held_out/truncated_share"
IMPLICIT_LOSS = "implicit_reward/loss"
IMPLICIT_ACCURACY = "implicit_reward/accuracy"
IMPLICIT_PAIR_ACCURACY = "implicit_reward/pair_accuracy"
IMPLICIT_MEAN_RIGHT = "implicit_reward/mean_right"
IMPLICIT_MEAN_WRONG = "implicit_reward/mean_wrong"
IMPLICIT_GRAD_NORM = "implicit_reward/grad_norm"
SUPERVISED_LOSS = "supervised/loss"
SUPERVISED_TOKENS = "supervised/tokens"
VALUE_MEAN = "values/mean"
VALUE_STEPS = "values/mean_steps"
VALUE_ROLLOUTS = "values/rollouts"
VALUE_TOKENS = "values/tokens"
VALUE_UNJUDGED = "values/unjudged_share"
STEP_SECONDS = "time/step_seconds"
ROLLOUT_SECONDS = "time/rollout_seconds"
UPDATE_SECONDS = "time/update_seconds"
TOKENS_PER_SECOND = "time/tokens_per_second"


@dataclass(frozen=True, slots=True)
class Metric:
    """One reported number. `label` is its short form on the progress display; None keeps it off the display."""

    name: str
    unit: str
    meaning: str
    label: str | None = None


METRICS: tuple[Metric, ...] = (
    Metric(REWARD_MEAN, "reward", "mean reward of all completions sampled for the step", "reward"),
    Metric(REWARD_STD, "reward", "standard deviation of those rewards"),
    Metric(ACCURACY, "share", "share of completions judged correct", "accuracy"),
    Metric(UNPARSEABLE_SHARE, "share", "share of completions in which no answer was found, or none that could be read"),
    Metric(TIMEOUT_SHARE, "share", "share of completions whose answer could not be judged, or whose program did not end, within its time"),
    Metric(AUDITED_SHARE, "share", "with `audited`: share of completions that the auditor judged"),
    Metric(AUDIT, "score", "mean score by the auditor of `audited`, or by the outcome verifier of `with_steps`"),
    Metric(AUDIT_GAP, "score", "how far the mean score of what is audited, or of the steps' verifier, stands above that", "audit gap"),
    Metric(
        INFORMATIVE_SHARE, "share", "share of groups that can teach something: rewards, or credits of steps, that differ", "informative"
    ),
    Metric(ZERO_VARIANCE_SHARE, "share", "share of the groups that cannot; one of the guards watches it"),
    Metric(KL_COEFFICIENT, "weight", "coefficient of the KL from the reference in this step"),
    Metric(DROPPED_UNINFORMATIVE, "groups", "groups left out because all rewards were equal (dynamic sampling)"),
    Metric(DROPPED_FAILED, "groups", "groups left out because the verifier could not judge them"),
    Metric(ZERO_ADVANTAGE_SHARE, "share", "share of completions whose advantage is zero; at 1 the update changes nothing"),
    Metric(MEAN_TOKENS, "tokens", "mean length of a completion, the stop token included", "tokens"),
    Metric(TRUNCATED_SHARE, "share", "share of completions cut off at max_new_tokens", "truncated"),
    Metric(ENTROPY, "nats/token", "mean entropy of the policy on the tokens it wrote", "entropy"),
    Metric(APPROX_KL, "nats/token", "mean k3 estimate of the KL from the policy before the step to the updated policy"),
    Metric(REFERENCE_KL, "nats/token", "mean k3 estimate of the KL from the policy to the frozen reference, where one is used", "kl"),
    Metric(CLIP_SHARE, "share", "share of tokens whose ratio was clipped"),
    Metric(GRAD_NORM, "norm", "global gradient norm before clipping", "grad norm"),
    Metric(LOSS, "loss", "value of the whole objective"),
    Metric(LEARNING_RATE, "1/step", "learning rate of the step"),
    Metric(RATIO_MAX, "ratio", "largest ratio of new to old probability of a token"),
    Metric(LOGPROB_DRIFT, "nats", "mean absolute difference of engine and policy log-probs on the same tokens"),
    Metric(
        SYNC_DIFFERENCE, "nats", "what the last check of an engine's weights found: mean absolute difference of log-probs on a fixed probe"
    ),
    Metric(CORRECTION_WEIGHT, "weight", "mean off-policy weight of a token: old policy over the engine that sampled, inside its bounds"),
    Metric(CORRECTION_WEIGHT_MAX, "weight", "largest such weight"),
    Metric(CORRECTION_OUTSIDE_SHARE, "share", "share of tokens whose weight was truncated or masked"),
    Metric(
        GROUPS_CUT, "groups", "groups given up unfinished or unused because a step had enough (over-sampling); their prompts come again"
    ),
    Metric(MIXED_VERSIONS_SHARE, "share", "share of completions whose first and last token were written by different weights"),
    Metric(STALENESS_MEAN, "versions", "mean number of policy versions between sampling and training"),
    Metric(STALENESS_MAX, "versions", "largest such number; never above batch.max_staleness"),
    Metric(GREEDY_ACCURACY, "share", "share of held-out problems solved by the greedy completion", "held-out greedy"),
    Metric(SAMPLED_ACCURACY, "share", "share of held-out completions at the training temperature that are correct", "held-out sampled"),
    Metric(HELD_OUT_FAILED, "problems", "held-out problems that the verifier could not judge; they are left out of both accuracies"),
    Metric(HELD_OUT_TOKENS, "tokens", "mean length of held-out completions"),
    Metric(HELD_OUT_TRUNCATED, "share", "share of held-out completions cut off at max_new_tokens"),
    Metric(IMPLICIT_LOSS, "nats", "cross-entropy of the implicit reward model on the step's outcomes, before it learned from them"),
    Metric(IMPLICIT_ACCURACY, "share", "share of completions whose implicit reward is above 0 where they are right, and not where wrong"),
    Metric(
        IMPLICIT_PAIR_ACCURACY,
        "share",
        "share of pairs of one group with different scores that the implicit reward puts in the same order; a tie counts half",
    ),
    Metric(IMPLICIT_MEAN_RIGHT, "reward", "mean implicit reward (the sum over the tokens) of right completions"),
    Metric(IMPLICIT_MEAN_WRONG, "reward", "mean implicit reward of the others"),
    Metric(IMPLICIT_GRAD_NORM, "norm", "gradient norm of the implicit reward model before clipping"),
    Metric(SUPERVISED_LOSS, "nats/token", "cross-entropy on given tokens (`rlvr sft`, or a supervised mix)", "loss"),
    Metric(SUPERVISED_TOKENS, "tokens", "given tokens learned from in the step"),
    Metric(VALUE_MEAN, "score", "advantage vine: mean value of the states between steps"),
    Metric(VALUE_STEPS, "steps", "steps of a completion; at 1 there is nothing between steps to be told"),
    Metric(VALUE_ROLLOUTS, "rollouts", "auxiliary rollouts of the step, from which values are taken and nothing is learned"),
    Metric(VALUE_TOKENS, "tokens", "tokens of those rollouts"),
    Metric(VALUE_UNJUDGED, "share", "share of those rollouts that the verifier could not judge; they are in no value"),
    Metric(STEP_SECONDS, "s", "wall time of the step"),
    Metric(ROLLOUT_SECONDS, "s", "wall time spent sampling and judging"),
    Metric(UPDATE_SECONDS, "s", "wall time spent on log-probs and updates"),
    Metric(TOKENS_PER_SECOND, "tokens/s", "sampled tokens per second of wall time", "tok/s"),
)
