"""What an algorithm is made of: its advantage, loss, clip, KL and what else shapes the update, with the checks of what contradicts itself.

Settings only, no torch: what the names in `advantage` and `loss` do is in `rlvr.advantages` and `rlvr.losses`. Validators check, they never
repair. The named bundles are in `rlvr.algorithms`; what depends on the rest of the run (group size, sampling limit) is checked by
`check_algorithm`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlvr.settings import Settings

KlEstimator = Literal["k1", "k2", "k3"]
Aggregation = Literal["token_mean", "sequence_mean", "sequence_sum", "constant"]

CLIPPING_LOSSES = frozenset({"clipped_surrogate", "gspo", "cispo", "gmpo"})
PLAIN_LOSSES = frozenset({"reinforce", "sapo"})
PROCESS_ADVANTAGES = {
    "process_group_zscore": "group_zscore",
    "process_return_to_go": "group_centred",
    "process_min_form": "leave_one_out",
}
"""Advantages that learn from the scores of steps, each with the baseline of the same kind for the outcome."""
PROCESS_READS = {"discount": ("process_group_zscore", "process_return_to_go"), "temperature": ("process_min_form",)}
"""Settings of the algorithm's `process` that not all of them read."""
IMPLICIT_ADVANTAGE = "implicit_process"
"""The advantage that learns from the rewards of tokens, which a model gives that is learned beside the policy."""
GROUP_ADVANTAGES = frozenset(
    {"group_zscore", "group_centred", "leave_one_out", "optimal_baseline", "pass_at_k", "vine", IMPLICIT_ADVANTAGE, *PROCESS_ADVANTAGES}
)
OVERLONG_BUFFER_SHARE = 4096 / 20480  # DAPO arXiv:2503.14476, section 4.1: a buffer of 4096 within a limit of 20480 tokens


class KlConfig(Settings):
    """How the policy is held near the frozen reference. A coefficient of 0 needs no reference model."""

    coefficient: float = Field(0.0, ge=0)
    estimator: KlEstimator = "k3"
    """http://joschu.net/blog/kl-approx.html. In the loss, k2's gradient is the KL's; k1's is zero in expectation."""
    where: Literal["loss", "reward"] = "loss"
    weigh_by_ratio: bool = False
    """In the loss: multiply each token's estimate by its ratio, gradient included, which makes k3's gradient the KL's (DeepSeek-V3.2,
    arXiv:2512.02556; TRL's default)."""
    controller: Literal["fixed", "adaptive"] = "fixed"
    """adaptive: the coefficient follows `target` as in arXiv:1909.08593, section 2.2; `coefficient` is where it starts."""
    target: float = Field(6.0, gt=0)
    """KL the adaptive controller steers to, nats per completion."""
    horizon: int = Field(10_000, ge=1)
    """Completions over which the adaptive controller corrects an error."""

    @model_validator(mode="after")
    def _check_kl(self) -> KlConfig:
        if self.weigh_by_ratio and self.where == "reward":
            raise ValueError(
                "kl.weigh_by_ratio corrects the gradient of a KL in the loss, and kl.where=reward has none: set one of the two"
            )
        if self.controller == "adaptive" and self.coefficient == 0:
            raise ValueError("kl.controller=adaptive multiplies kl.coefficient, which is 0 and would stay 0: set a positive coefficient")
        return self


class OverlongConfig(Settings):
    """Soft overlong punishment, DAPO arXiv:2503.14476, equation 13."""

    buffer_tokens: int | None = Field(None, ge=1)
    """The last tokens before the limit, over which the penalty grows; None: a fifth of `max_new_tokens`, the paper's share."""
    penalty: float = Field(1.0, gt=0)
    """What a completion at the limit loses."""


class ProcessConfig(Settings):
    """How the scores of steps and the outcome make one advantage: weight * process + outcome_weight * outcome."""

    weight: float = Field(1.0, gt=0)
    outcome_weight: float = Field(0.0, ge=0)
    """Of the whole completion's reward, the verifier's score after shaping."""
    outcome_advantage: str | None = None
    """How the reward of whole completions becomes an advantage; None: by the process advantage's own kind of baseline."""
    discount: float = Field(1.0, ge=0, le=1)
    """process_group_zscore, process_return_to_go: what a step's score loses with each step between; at 0 a token answers for its own."""
    temperature: float = Field(0.1, gt=0)  # https://github.com/CJReinforce/PURE, openrlhf/utils/utils.py
    """process_min_form: the smaller, the nearer the return is to the lowest score of a step."""


class VineConfig(Settings):
    """Where the policy is asked again what becomes of a completion, and how often: `advantage: vine`."""

    num_rollouts: int = Field(9, ge=1)  # github.com/McGill-NLP/VinePPO, configs/polIter_rho1bSft2_vineppo_MATH.jsonnet
    """Auxiliary rollouts from the beginning of each step but the first."""
    separator: str | None = Field(None, min_length=1)
    """What ends a step; None: blank lines, so that paragraphs are steps."""
    max_steps: int = Field(32, ge=2)
    """Neighbouring steps of a completion that has more are joined, evenly, so that no completion costs more rollouts than these."""


class ImplicitRewardConfig(Settings):
    """The implicit process reward model of PRIME, and how its rewards and the outcome make one advantage. It starts as the policy does.

    Values of arXiv:2502.01456, section 4.1; what the paper leaves open is from its code, github.com/PRIME-RL/PRIME.
    """

    beta: float = Field(0.05, gt=0)
    """A token's reward is beta times the log-ratio of its probabilities by the reward model and by its frozen start."""
    weight: float = Field(1.0, gt=0)
    """Of the return of the tokens' rewards; the code has 5 for both weights, which whitening takes back."""
    outcome_weight: float = Field(1.0, ge=0)
    """Of the whole completion's reward, the verifier's score after shaping."""
    discount: float = Field(1.0, ge=0, le=1)
    """What a token's reward loses with each token between."""
    learning_rate: float = Field(1e-6, gt=0)
    """Constant; the optimizer's kind, betas, eps and weight decay are the policy's."""
    max_grad_norm: float = Field(10.0, gt=0)  # examples/run_prime_main.sh
    update: Literal["before", "after"] = "after"
    """When the reward model learns from a step's outcomes: `after` its rewards for that step are taken (algorithm 1; the first step's are
    then all 0), or `before`, so that it scores completions whose outcomes it has just seen (verl's default)."""


class CorrectionConfig(Settings):
    """A weight between the engine that sampled (`behavior`) and the policy before the step (`old`).

    token + truncate is TIS (fengyao.notion.site/off-policy-rl), token + mask with both bounds is IcePop (arXiv:2510.18855),
    sequence + mask is masked importance sampling (MIS), token + clip puts PPO's clip (arXiv:1707.06347, equation 7) between the two.
    A sequence's ratio is the product of its tokens'.
    """

    level: Literal["token", "sequence"] = "token"
    mode: Literal["truncate", "mask", "clip"] = "truncate"
    """truncate: clamp the ratio into [low, high]. mask: weight 0 outside it. clip: weight 0 only where the ratio left it in the direction
    in which the advantage pushes, so that what stale rollouts ask for is not done again; else the ratio, at most `truncate_at`."""
    low: float = Field(0.0, ge=0)
    high: float = Field(2.0, gt=0)
    truncate_at: float = Field(2.0, gt=0)
    """clip only: the largest weight."""
    when: Literal["always", "off_policy"] = "always"
    """off_policy: only where the two can differ, with stale rollouts or an engine with weights of its own."""

    @model_validator(mode="after")
    def _check_bounds(self) -> CorrectionConfig:
        if not self.low < self.high:
            raise ValueError(f"correction keeps ratios in [low, high] = [{self.low}, {self.high}]: low must be smaller than high")
        return self


OFF_POLICY_CORRECTION = CorrectionConfig(mode="clip", low=0.8, high=1.2, when="off_policy")
"""What truncation alone does not hold: docs/asynchronous.md."""


class AlgorithmSettings(Settings):
    """What every algorithm has; each subclass states its own defaults."""

    advantage: str
    """Registered name or dotted path of a function of one group."""
    loss: str
    """Registered name or dotted path of a per-token loss."""
    aggregation: Aggregation
    clip_low: float | None = Field(None, ge=0)
    """The ratio is clipped at 1 - clip_low (gmpo: its logarithm at -clip_low); None for losses that do not clip."""
    clip_high: float | None = Field(None, ge=0)
    """The ratio is clipped at 1 + clip_high (gmpo: its logarithm at clip_high)."""
    clip_dual: float | None = Field(None, gt=1)
    """Two-sided clip: with a negative advantage the ratio counts at most this much (dual clip, arXiv:1912.09729; `delta` in TRL)."""
    kl: KlConfig = KlConfig()
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus, nats per token."""
    mask_truncated: bool = False
    """Completions cut by the length limit do not count in the loss."""
    informative_groups_only: bool = False
    """Dynamic sampling: groups whose rewards are all equal are dropped and replaced by others."""
    overlong: OverlongConfig | None = None
    correction: CorrectionConfig | None = OFF_POLICY_CORRECTION
    pass_k: int | None = Field(None, ge=2)
    """Optimise the best of k completions instead of the mean one; needs `advantage: pass_at_k`."""
    process: ProcessConfig = ProcessConfig()
    """For advantages that learn from the scores of steps: process_group_zscore, process_return_to_go, process_min_form."""
    vine: VineConfig = VineConfig()
    """For advantage vine."""
    implicit: ImplicitRewardConfig = ImplicitRewardConfig()
    """For the advantage that learns its own token rewards: implicit_process."""
    batch_scaling: Literal["none", "whiten", "informative_share"] = "none"
    """After the groups: whiten subtracts the mean and divides by the standard deviation over all scored tokens of the batch;
    informative_share multiplies by groups / informative groups."""

    @property
    def needs_greedy_baseline(self) -> bool:
        """Whether each group also needs one greedy completion, for its reward."""
        return self.advantage == "greedy_baseline"

    @property
    def compares_within_group(self) -> bool:
        """Whether a group whose rewards are all equal teaches nothing; a baseline from elsewhere can still learn from it."""
        return self.advantage in GROUP_ADVANTAGES

    @property
    def step_advantage(self) -> str | None:
        """The advantage, where it is one that learns from the scores of steps."""
        return self.advantage if self.advantage in PROCESS_ADVANTAGES else None

    @property
    def needs_values(self) -> bool:
        """Whether each group also needs the values of the states between its completions' steps."""
        return self.advantage == "vine"

    @property
    def credits_steps(self) -> bool:
        """Whether the tokens of one completion are credited by step, so that equal rewards may teach something."""
        return self.step_advantage is not None or self.needs_values

    @property
    def learns_rewards(self) -> bool:
        """Whether an implicit reward model is learned beside the policy."""
        return self.advantage == IMPLICIT_ADVANTAGE

    @property
    def needs_reference(self) -> bool:
        """Whether log-probs of the frozen reference are needed, in the loss or in the reward."""
        return self.kl.coefficient > 0

    @model_validator(mode="after")
    def _check_clip(self) -> AlgorithmSettings:
        clips = {"clip_low": self.clip_low, "clip_high": self.clip_high}
        for field, value in clips.items():
            if self.loss in CLIPPING_LOSSES and value is None:
                raise ValueError(f"loss={self.loss} clips the ratio and needs {field}: set it, for example {field}=0.2")
            if self.loss in PLAIN_LOSSES and value is not None:
                raise ValueError(f"loss={self.loss} does not clip, so {field}={value} would do nothing: leave it out or set it to null")
        if self.clip_low is not None and self.loss in {"clipped_surrogate", "gspo", "cispo"} and self.clip_low > 1:
            raise ValueError(f"clip_low={self.clip_low} puts the lower bound 1 - clip_low below 0: use at most 1, which is no lower bound")
        if self.clip_dual is not None:
            if self.loss in PLAIN_LOSSES | {"cispo", "gmpo"}:
                raise ValueError(f"loss={self.loss} has no dual clip, so clip_dual={self.clip_dual} would do nothing: set it to null")
            if self.clip_high is not None and self.clip_dual <= 1 + self.clip_high:
                raise ValueError(f"clip_dual={self.clip_dual} must be larger than 1 + clip_high = {1 + self.clip_high}")
        return self

    @model_validator(mode="after")
    def _check_pass_k(self) -> AlgorithmSettings:
        if (self.pass_k is not None) != (self.advantage == "pass_at_k"):
            raise ValueError(f"pass_k={self.pass_k} with advantage={self.advantage}: pass@k needs both pass_k and advantage=pass_at_k")
        return self

    @model_validator(mode="after")
    def _check_process(self) -> AlgorithmSettings:
        process = self.process
        if self.step_advantage is None:
            if process != ProcessConfig():
                raise ValueError(
                    f"advantage={self.advantage} does not look at the scores of steps, so process would do nothing: leave it out, or set "
                    f"advantage to one of {', '.join(PROCESS_ADVANTAGES)}"
                )
            return self
        if process.outcome_advantage is not None and process.outcome_advantage in {
            *PROCESS_ADVANTAGES,
            "pass_at_k",
            "greedy_baseline",
            "vine",
        }:
            raise ValueError(
                f"process.outcome_advantage={process.outcome_advantage} is no advantage of a group's outcomes alone: set for example "
                "group_zscore or leave_one_out"
            )
        if process.outcome_advantage is not None and process.outcome_weight == 0:
            raise ValueError("process.outcome_advantage does nothing while process.outcome_weight is 0: set a positive weight")
        for field, names in PROCESS_READS.items():
            if getattr(process, field) != getattr(ProcessConfig(), field) and self.advantage not in names:
                raise ValueError(
                    f"process.{field} is read by {' and '.join(names)} alone, and the advantage is {self.advantage}: leave it out"
                )
        if self.overlong is not None and process.outcome_weight == 0:
            raise ValueError(
                "overlong lowers the reward of the whole completion, which counts nothing while process.outcome_weight is 0: set a "
                "positive weight, or overlong to null"
            )
        if self.kl.where == "reward" and self.kl.coefficient > 0:
            raise ValueError(
                f"advantage={self.advantage} takes no KL in the reward (kl.where=reward): set kl.where=loss, or kl.coefficient to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_vine(self) -> AlgorithmSettings:
        if not self.needs_values:
            if self.vine != VineConfig():
                raise ValueError(f"advantage={self.advantage} estimates no values of steps, so vine would do nothing: set advantage=vine")
            return self
        if self.overlong is not None:
            raise ValueError(
                "advantage=vine compares rewards with values of the verifier's score, from which overlong would take something away: set "
                "overlong to null, and let a verifier judge the length (`length`)"
            )
        if self.kl.where == "reward" and self.kl.coefficient > 0:
            raise ValueError("advantage=vine takes no KL in the reward (kl.where=reward): set kl.where=loss, or kl.coefficient to 0")
        return self

    @model_validator(mode="after")
    def _check_implicit(self) -> AlgorithmSettings:
        if not self.learns_rewards:
            if self.implicit != ImplicitRewardConfig():
                raise ValueError(
                    f"advantage={self.advantage} learns no rewards of tokens, so implicit would do nothing: leave it out, or set "
                    f"advantage={IMPLICIT_ADVANTAGE}"
                )
            return self
        if self.batch_scaling == "informative_share":
            raise ValueError(
                f"batch_scaling=informative_share takes groups with equal outcomes for groups without gradient, and "
                f"advantage={IMPLICIT_ADVANTAGE} gives their tokens one: set batch_scaling to whiten or none"
            )
        if self.implicit.outcome_weight == 0 and (self.overlong is not None or (self.kl.where == "reward" and self.kl.coefficient > 0)):
            what, remedy = ("overlong", "overlong to null") if self.overlong is not None else ("kl.where=reward", "kl.where=loss")
            raise ValueError(
                f"{what} lowers the reward of the whole completion, which counts nothing while implicit.outcome_weight is 0: set a "
                f"positive weight, or {remedy}"
            )
        return self

    @model_validator(mode="after")
    def _check_gates(self) -> AlgorithmSettings:
        if self.loss == "sapo" and "gate_positive" not in type(self).model_fields:
            raise ValueError("loss=sapo reads gate_positive and gate_negative: select it with name=sapo")
        return self


def check_algorithm(config: AlgorithmSettings, *, group_size: int, max_new_tokens: int) -> None:
    """Refuse what the rest of the run makes impossible.

    Raises: ValueError: a group too small for the advantage, or an overlong buffer that does not fit under the limit.
    """
    if group_size < 2 and (config.advantage in GROUP_ADVANTAGES or config.informative_groups_only):
        reason = f"advantage={config.advantage}" if config.advantage in GROUP_ADVANTAGES else "informative_groups_only=true"
        raise ValueError(f"{reason} compares completions of one prompt and group_size={group_size}: set batch.group_size to at least 2")
    if config.pass_k is not None and config.pass_k > group_size:
        raise ValueError(f"pass_k={config.pass_k} draws more completions than a group has (group_size={group_size}): lower pass_k")
    if config.overlong is not None and config.overlong.buffer_tokens is not None and config.overlong.buffer_tokens >= max_new_tokens:
        raise ValueError(
            f"overlong.buffer_tokens={config.overlong.buffer_tokens} must be smaller than max_new_tokens={max_new_tokens}: "
            "set a smaller one, or null for a fifth of the limit"
        )
