"""Advantage estimators: from the rewards of one group to per-token credit.

Pure functions of a group, and one function for the whole batch, where some algorithms scale what the groups gave. No model, no sampling.
Sums are taken in float64; a group whose rewards are all equal has advantages of exactly zero wherever the formula says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlvr.algorithm_settings import IMPLICIT_ADVANTAGE, PROCESS_ADVANTAGES, AlgorithmSettings
from rlvr.registries import ADVANTAGES
from rlvr.rewards import SPREAD_TOLERANCE, is_informative
from rlvr.types import StepValues

ZSCORE_EPS = 1e-6  # The paper divides by the bare standard deviation; this only keeps a nearly flat group finite.


@dataclass(frozen=True, slots=True)
class StepRewards:
    """One completion's steps in order: the score of each, and the exclusive token at which it ends. Both are empty where it has none.

    A token belongs to the first step that ends behind it; ends may repeat, where one token holds several steps.
    """

    scores: Float[Tensor, " S"]
    ends: Int[Tensor, " S"]


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """What an advantage estimator sees of one group of G completions.

    `lengths`: tokens. `greedy_reward`: that of the greedy completion, for ReMax. `token_penalties`: one [length] tensor a completion, what
    each token costs (the KL in the reward, coefficient included); None where there is none. `scored`: which completions the loss looks at;
    None for all. `steps`: for each completion its scored steps, ends counted in the tokens of `lengths`; None where no completion has any.
    `values`: for each completion the values of the states between its steps; None where they were not asked for.
    `token_rewards`: one [length] tensor a completion, what a learned reward model says of each token; None where there is none.
    """

    rewards: Float[Tensor, " G"]
    lengths: Int[Tensor, " G"]
    greedy_reward: float | None = None
    token_penalties: tuple[Tensor, ...] | None = None
    scored: tuple[bool, ...] | None = None
    steps: tuple[StepRewards, ...] | None = None
    values: tuple[StepValues, ...] | None = None
    token_rewards: tuple[Tensor, ...] | None = None

    @property
    def returns(self) -> Float[Tensor, " G"]:
        """Rewards less all their tokens' penalties, float64."""
        rewards = self.rewards.double()
        if self.token_penalties is None:
            return rewards
        return rewards - torch.stack([penalties.double().sum() for penalties in self.token_penalties])


AdvantageFn = Callable[[GroupRewards], list[Tensor]]
Sum = Callable[[Tensor], Tensor]


def group_zscore(group: GroupRewards) -> list[Tensor]:
    """Credit each completion with its reward's distance from the group's mean, in standard deviations.

    A_i = (r_i - mean(r)) / (std(r) + eps), std with G - 1 in the denominator, eps = 1e-6. GRPO, arXiv:2402.03300, section 4.1.2; the
    paper leaves G or G - 1 open, TRL and verl take G - 1.

    Returns: one tensor per completion, [length], constant over its tokens.
    Raises: ValueError: fewer than two completions.
    Example: rewards 1, 0, 0, 0 have mean 1/4 and std 1/2, and give 1.5, -0.5, -0.5, -0.5 (up to eps).
    """
    centred = _centred(group, "group_zscore")
    return _spread(centred / (group.returns.std() + ZSCORE_EPS), group)


def group_centred(group: GroupRewards) -> list[Tensor]:
    """Credit each completion with its reward minus the group's mean.

    A_i = r_i - mean(r). Dr. GRPO, arXiv:2503.20783, section 3; also GPG (arXiv:2504.02546) and the REINFORCE++ baseline (arXiv:2501.03262).

    Raises: ValueError: fewer than two completions.
    Example: rewards 1, 0, 0, 0 give 0.75, -0.25, -0.25, -0.25.
    """
    return _spread(_centred(group, "group_centred"), group)


def leave_one_out(group: GroupRewards) -> list[Tensor]:
    """Credit each completion with its reward minus the mean reward of its siblings.

    A_i = r_i - mean of r_j over j != i, which is G / (G - 1) times the centred reward. RLOO, arXiv:2402.14740, section 2.2.

    Raises: ValueError: fewer than two completions.
    Example: rewards 1, 0, 0, 0 give 1, -1/3, -1/3, -1/3.
    """
    return _spread(_left_one_out(group, "leave_one_out"), group)


def optimal_baseline(group: GroupRewards) -> list[Tensor]:
    """Credit each completion with its reward minus the length-weighted mean reward.

    b = sum_i l_i r_i / sum_i l_i; A_i = r_i - b. The baseline of least variance if a completion's squared gradient norm grows with its
    length. OPO, arXiv:2505.23585, section 3.

    Raises: ValueError: fewer than two completions.
    Example: rewards 1, 0 with lengths 1, 3 have b = 1/4 and give 0.75, -0.25.
    """
    returns, weights = group.returns, group.lengths.double()
    if _is_flat(_centred(group, "optimal_baseline")):
        return _spread(torch.zeros_like(returns), group)
    return _spread(returns - (returns * weights).sum() / weights.sum(), group)


def greedy_baseline(group: GroupRewards) -> list[Tensor]:
    """Credit each completion with its reward minus that of the greedy completion of the same prompt.

    A_i = r_i - r(greedy). ReMax, arXiv:2310.10505, algorithm 2. The greedy reward carries no penalty of its own.

    Raises: ValueError: the group has no greedy reward.
    Example: rewards 1, 0 with a greedy reward of 1 give 0, -1.
    """
    if group.greedy_reward is None:
        raise ValueError("advantage greedy_baseline needs the reward of a greedy completion for each group: greedy_reward is None")
    return _spread(group.returns - group.greedy_reward, group)


def raw_reward(group: GroupRewards) -> list[Tensor]:
    """Credit each token with the reward minus the penalties of that token and of all after it.

    A_it = r_i - sum over s >= t of penalty_is: the undiscounted return from token t. REINFORCE++, arXiv:2501.03262, without a
    group baseline; centring is left to the batch (`batch_scaling: whiten`).

    Example: reward 1 with penalties 0.1, 0.2 gives 0.7, 0.8.
    """
    plain = [
        torch.full((int(length),), float(reward), dtype=torch.float64) for reward, length in zip(group.rewards, group.lengths, strict=True)
    ]
    if group.token_penalties is not None:
        plain = [credit - p.double().flip(0).cumsum(0).flip(0) for credit, p in zip(plain, group.token_penalties, strict=True)]
    return [credit.float() for credit in plain]


def pass_at_k(group: GroupRewards, k: int) -> list[Tensor]:
    """Credit each completion with what it adds to the best of k, with the other k - 1 drawn from its siblings.

    A_i = k * mean over the (k - 1)-subsets J of the siblings of (max(r_i, max_J r) - max_J r). The mean over i of A_i * grad log pi(o_i) is
    an unbiased estimate of the gradient of E[max of k rewards]: the subtracted max is a baseline the completion itself does not enter.
    PKPO, arXiv:2505.15201, `sloo_minus_one`, times G because the loss takes a mean over completions.

    Raises: ValueError: k is below 2 or above the group's size.
    Example: rewards 1, 1, 0, 0 and k = 2: a right completion beats 2 of its 3 siblings by 1, so 4/3, 4/3, 0, 0.
    """
    returns = group.returns
    size = len(returns)
    if not 2 <= k <= size:
        raise ValueError(f"pass_at_k with k={k} in a group of {size}: k must be between 2 and the group's size")
    credits = []
    for index in range(size):
        siblings = torch.cat([returns[:index], returns[index + 1 :]]).sort().values
        # The m-th smallest sibling is the best of comb(m, k - 2) of the comb(size - 1, k - 1) subsets.
        chances = torch.tensor([comb(m, k - 2) / comb(size - 1, k - 1) for m in range(size - 1)], dtype=torch.float64)
        credits.append(k * (chances * (returns[index] - siblings).clamp(min=0)).sum())
    return _spread(torch.stack(credits), group)


def process_group_zscore(group: GroupRewards, *, discount: float = 1.0) -> list[Tensor]:
    """Credit each token with the normalised scores of its own step and of all later ones.

    R: the scores of all steps of all completions of the group, in one set. s_ij = (r_ij - mean(R)) / (std(R) + eps), eps = 1e-6;
    A_it = sum of s_ij over the steps j that end at token t or after it. GRPO with process supervision, arXiv:2402.03300, section 4.1.3;
    std with |R| - 1 in the denominator as in `group_zscore`. A completion with more steps sums more terms. `discount` is what each step
    between takes off, 1 in the paper; at 0 a token answers for its own step alone.

    Raises: ValueError: fewer than two completions, or no steps.
    Example: scores (1, 0) and (1, 1), each step one token, have mean 3/4 and std 1/2, so s is 0.5 or -1.5, and give (-1, -1.5) and
    (1, 0.5) (up to eps).
    """
    steps = _steps_of(group, "process_group_zscore")
    scores = torch.cat([step.scores.double() for step in steps])
    if len(scores) < 2 or not is_informative(scores.tolist()):
        return [torch.zeros(int(length)) for length in group.lengths]
    mean, scale = scores.mean(), 1 / (scores.std() + ZSCORE_EPS)
    to_go = [_return_to_go((step.scores.double() - mean) * scale, discount) for step in steps]
    return [_over_tokens(values, step.ends, length) for values, step, length in zip(to_go, steps, group.lengths.tolist(), strict=True)]


def process_return_to_go(group: GroupRewards, *, discount: float = 1.0) -> list[Tensor]:
    """Credit each token with the return from its step on, less the group's mean return from the step of the same number on.

    G_ij = r_ij + discount * G_i(j+1), zero behind the last step; b_j = mean over all G completions of G_kj, zero where k has fewer steps;
    A_it = G_ij - b_j for the tokens of step j. REINFORCE with reward to go (arXiv:1506.02438, section 1) and `group_centred` for
    each step number: a baseline that knows only the number does not bias the gradient, and does not hold later tokens against the
    larger return of the whole.

    Raises: ValueError: fewer than two completions, or no steps.
    Example: scores (1, 0) and (1, 1), each step one token, have returns (1, 0) and (2, 1), means (1.5, 0.5), and give (-0.5, -0.5)
    and (0.5, 0.5).
    """
    steps = _steps_of(group, "process_return_to_go")
    returns = torch.zeros(len(steps), max(len(step.scores) for step in steps), dtype=torch.float64)
    for row, step in zip(returns, steps, strict=True):
        row[: len(step.scores)] = _return_to_go(step.scores.double(), discount)
    centred = returns - returns.mean(0)
    centred[:, returns.amax(0) - returns.amin(0) <= SPREAD_TOLERANCE] = 0
    return [_over_tokens(row, step.ends, length) for row, step, length in zip(centred, steps, group.lengths.tolist(), strict=True)]


def process_min_form(group: GroupRewards, *, temperature: float = 0.1) -> list[Tensor]:
    """Credit each token with nearly the lowest score among all steps, until that step is over, less what siblings' tokens get.

    w_i = softmax(-r_i / temperature) over the steps of completion i; G_ij = sum over m >= j of w_im r_im, about min(r_i) for steps up to
    the worst and about 0 behind it; b_i = the mean of G_k over all tokens of the siblings k != i; A_it = G_ij - b_i for the tokens of step
    j. PURE, arXiv:2504.15275: the min-form weights, and the leave-one-out baseline taken over tokens, because one over steps rewards having
    few or many of them (github.com/CJReinforce/PURE, issue 2). Their code on verl divides the siblings' sum by (G - 1) times the padded
    length; here it is divided by the siblings' own tokens, the same where all are equally long, and padding does not matter. Scores should
    lie around 0, good steps above and bad ones below: what comes behind the worst step counts as 0.

    Raises: ValueError: fewer than two completions, or no steps.
    Example: scores (1, -1) and (1, 1), each step one token, temperature near 0: weights (0, 1) and (1/2, 1/2), returns (-1, -1) and
    (1, 0.5), baselines 0.75 and -1, so (-1.75, -1.75) and (2, 1.5).
    """
    steps = _steps_of(group, "process_min_form")
    weighted = [torch.softmax(-step.scores.double() / temperature, 0) * step.scores.double() for step in steps]
    returns = [
        _over_tokens(_return_to_go(values), step.ends, length)
        for values, step, length in zip(weighted, steps, group.lengths.tolist(), strict=True)
    ]
    values = torch.cat(returns)
    if values.numel() == 0 or not is_informative(values.tolist()):
        return [torch.zeros_like(credit) for credit in returns]
    sums, counts = torch.stack([credit.double().sum() for credit in returns]), group.lengths.double()
    baselines = (sums.sum() - sums) / (counts.sum() - counts).clamp(min=1)
    return [(credit.double() - baseline).float() for credit, baseline in zip(returns, baselines, strict=True)]


def vine(group: GroupRewards) -> list[Tensor]:
    """Credit each step with what it adds to the return that can be expected, as rollouts from where it begins and ends tell.

    A_ij = V(s_i(j+1)) - V(s_ij) for the tokens of step j, and R_i - V(s_ij) for those of the last: r + gamma V(s') - V(s) with gamma 1,
    rewards of 0 before the end, and nothing to come behind it. V(s_ij), the value of the prompt and the first steps, is the mean score of
    K rollouts from there. VinePPO, arXiv:2410.01679, section 4; github.com/McGill-NLP/VinePPO, whose batch also whitens what comes out.
    They draw K rollouts from the prompt as well; here V(s_i0) is the mean return of the siblings, which are such rollouts already and
    independent of completion i. A completion's credits sum up to `leave_one_out`'s, and with a single step are the same.

    Raises: ValueError: fewer than two completions, or no values.
    Example: rewards 1, 0; the first has two steps of one token with the value 0.75 between them, the second one step. The prompt's values
    are 0 and 1, so 0.75, 0.25 and -1.
    """
    if group.values is None:
        raise ValueError("advantage vine needs the values of the states between steps, and the group has none: values is None")
    returns, size = group.returns, len(group.rewards)
    if size < 2:
        raise ValueError(f"advantage vine compares completions of one prompt and got {size}: use a group size of at least 2")
    prompt_values = (returns.sum() - returns) / (size - 1)
    credits = []
    for reward, first, steps, length in zip(returns.tolist(), prompt_values.tolist(), group.values, group.lengths.tolist(), strict=True):
        gains = torch.tensor([first, *steps.values, reward], dtype=torch.float64).diff()
        gains[gains.abs() <= SPREAD_TOLERANCE] = 0
        credits.append(_over_tokens(gains, torch.tensor(steps.ends), length))
    return credits


def implicit_process(group: GroupRewards, *, discount: float = 1.0, weight: float = 1.0, outcome_weight: float = 1.0) -> list[Tensor]:
    """Credit each token with the rewards of all tokens from it on, each less the siblings' mean, and with the outcome left one out.

    A_it = weight * sum over s >= t of discount^(s - t) * (r_is - b_i) + outcome_weight * (r_i - mean of r_j over j != i), where r_is is a
    token's reward, r_i the completion's, and b_i = mean over j != i of completion j's mean reward of a token. PRIME, arXiv:2502.01456,
    equation 5, whose b_i is printed with r(y_j) and described as of "averaged implicit process rewards"; the mean over tokens is what
    its code takes. That code (verl, recipe/prime) differs otherwise: how far a token's reward lies from its own completion's mean
    counts G / (G - 1) times; rewards are divided by the batch's largest return (`prime_norm`); a completion's last token has none; the
    weights are 5 and 5; and the result is whitened over the batch, which `batch_scaling: whiten` does here.

    Raises: ValueError: fewer than two completions, or no token rewards.
    Example: token rewards (0.3, 0.1) and (-0.2,) with outcomes 1 and 0: the baselines are -0.2 and 0.2; the first's tokens are worth 0.5
    and 0.3, so 0.8 and 0.3 to go, and with the outcome's +1 and -1 the advantages are (1.8, 1.3) and (-1.4,).
    """
    outcomes = _left_one_out(group, IMPLICIT_ADVANTAGE)
    if group.token_rewards is None:
        raise ValueError(f"advantage {IMPLICIT_ADVANTAGE} needs a reward for each token, and token_rewards is None: it is learned in a run")
    rewards = [values.double() for values in group.token_rewards]
    means = torch.stack([values.sum() / max(len(values), 1) for values in rewards])
    baselines = (means.sum() - means) / (len(means) - 1)
    return [
        (weight * _return_to_go(values - baseline, discount) + outcome_weight * outcome).float()
        for values, baseline, outcome in zip(rewards, baselines, outcomes, strict=True)
    ]


def same(tensor: Tensor) -> Tensor:
    """Return the tensor: the sum over one rank."""
    return tensor


def compute_advantages(groups: Sequence[GroupRewards], config: AlgorithmSettings, *, all_reduce_sum: Sum = same) -> list[list[Tensor]]:
    """Return one [length] tensor for each completion of each group, float32.

    `all_reduce_sum` adds a tensor over all ranks; what is scaled by the batch is scaled by the batch of all ranks.

    Raises: RegistryError: no such advantage. ValueError: the advantage refuses a group.
    """
    advantages = [group_advantages(group, config) for group in groups]
    if config.batch_scaling == "whiten":
        scored = [group.scored or (True,) * len(group.rewards) for group in groups]
        return whiten(advantages, scored=scored, all_reduce_sum=all_reduce_sum)
    if config.batch_scaling == "informative_share":
        return scale_by_informative_share(advantages, [carries_gradient(group, config) for group in groups], all_reduce_sum=all_reduce_sum)
    return advantages


def group_advantages(group: GroupRewards, config: AlgorithmSettings) -> list[Tensor]:
    """Return one [length] tensor for each completion, before the batch is looked at; see `compute_advantages`."""
    if config.pass_k is not None:
        return pass_at_k(group, config.pass_k)
    if config.step_advantage is not None:
        return _process_and_outcome(group, config)
    if config.learns_rewards:
        implicit = config.implicit
        return implicit_process(group, discount=implicit.discount, weight=implicit.weight, outcome_weight=implicit.outcome_weight)
    return _estimator_of(config.advantage)(group)


def _process_and_outcome(group: GroupRewards, config: AlgorithmSettings) -> list[Tensor]:
    """Weigh the advantage of the steps and that of the outcome, and add them up."""
    settings = config.process
    if config.advantage == "process_return_to_go":
        credits = process_return_to_go(group, discount=settings.discount)
    elif config.advantage == "process_min_form":
        credits = process_min_form(group, temperature=settings.temperature)
    else:
        credits = process_group_zscore(group, discount=settings.discount)
    if settings.outcome_weight == 0:
        return [settings.weight * credit for credit in credits]
    outcomes = _estimator_of(settings.outcome_advantage or PROCESS_ADVANTAGES[config.advantage])(group)
    return [settings.weight * credit + settings.outcome_weight * outcome for credit, outcome in zip(credits, outcomes, strict=True)]


def carries_gradient(group: GroupRewards, config: AlgorithmSettings) -> bool:
    """Return whether a group can teach anything: whether its returns differ or, for an advantage of steps, any token's credit is not 0.

    Equal outcomes with different steps are information; so is one completion with a good and a bad step. Rewards of tokens that are
    learned say nothing that the outcomes did not.
    """
    if not config.credits_steps:
        return is_informative(group.returns.tolist())
    return any(bool((credit.abs() > SPREAD_TOLERANCE).any()) for credit in group_advantages(group, config))


def whiten(
    advantages: Sequence[Sequence[Tensor]], *, scored: Sequence[Sequence[bool]] | None = None, all_reduce_sum: Sum = same
) -> list[list[Tensor]]:
    """Subtract the mean and divide by the standard deviation over all tokens of the batch, of the completions that are `scored`.

    A' = (A - mean(A)) / (std(A) + 1e-6), both over tokens, std with the number of tokens in the denominator. REINFORCE++,
    arXiv:2501.03262. A batch without spread becomes exactly zero.

    Example: two completions of one token with advantages 1 and 0 have mean 0.5 and std 0.5, and become 1 and -1 (up to eps).
    """
    scored = [[True] * len(group) for group in advantages] if scored is None else scored
    counted = [
        credit.double()
        for group, flags in zip(advantages, scored, strict=True)
        for credit, counts in zip(group, flags, strict=True)
        if counts
    ]
    values = torch.cat(counted or [torch.zeros(0, dtype=torch.float64)])
    total, count = all_reduce_sum(torch.stack([values.sum(), torch.tensor(float(values.numel()), dtype=torch.float64)]))
    mean = total / count.clamp(min=1)
    variance = all_reduce_sum(((values - mean) ** 2).sum()) / count.clamp(min=1)
    scale = 0.0 if variance.sqrt() < ZSCORE_EPS else 1 / (variance.sqrt() + ZSCORE_EPS)
    return [[((credit.double() - mean) * scale).float() for credit in group] for group in advantages]


def scale_by_informative_share(
    advantages: Sequence[Sequence[Tensor]], informative: Sequence[bool], *, all_reduce_sum: Sum = same
) -> list[list[Tensor]]:
    """Multiply by groups / informative groups, so that groups without gradient do not shrink the batch's.

    `informative`: for each group, whether it has one. alpha = B / (B - M), M groups of B having none. GPG, arXiv:2504.02546, section 3.

    Example: one informative group among four: everything times 4.
    """
    counts = torch.tensor([float(len(advantages)), float(sum(informative))], dtype=torch.float64)
    total, with_gradient = all_reduce_sum(counts)
    alpha = float(total / with_gradient) if with_gradient > 0 else 1.0
    return [[credit * alpha for credit in group] for group in advantages]


@cache
def _estimator_of(name: str) -> AdvantageFn:
    # Asked for every step, and asking the installed packages takes 7 ms.
    return ADVANTAGES.get(name)


def _centred(group: GroupRewards, name: str) -> Float[Tensor, " G"]:
    """Return the returns minus their mean; exactly zero where all are equal, which floating point alone does not promise."""
    returns = group.returns
    if len(returns) < 2:
        raise ValueError(f"advantage {name} compares completions of one prompt and got {len(returns)}: use a group size of at least 2")
    return returns - returns.mean() if is_informative(returns.tolist()) else torch.zeros_like(returns)


def _left_one_out(group: GroupRewards, name: str) -> Float[Tensor, " G"]:
    """Return each return minus the mean of its siblings'."""
    size = len(group.rewards)
    return _centred(group, name) * (size / max(size - 1, 1))


def _is_flat(centred: Tensor) -> bool:
    return not bool(centred.any())


def _spread(credits: Float[Tensor, " G"], group: GroupRewards) -> list[Tensor]:
    """Repeat each completion's credit over its tokens."""
    return [torch.full((int(length),), float(credit)) for credit, length in zip(credits, group.lengths, strict=True)]


def _steps_of(group: GroupRewards, name: str) -> tuple[StepRewards, ...]:
    if group.steps is None:
        raise ValueError(f"advantage {name} learns from the scores of steps, and the group has none: use a verifier that scores steps")
    if len(group.rewards) < 2:
        raise ValueError(
            f"advantage {name} compares completions of one prompt and got {len(group.rewards)}: use a group size of at least 2"
        )
    return group.steps


def _return_to_go(values: Float[Tensor, " S"], discount: float = 1.0) -> Float[Tensor, " S"]:
    """Return for each step its value and the discounted values of all later ones."""
    returns, later = [], 0.0
    for value in reversed(values.tolist()):
        later = value + discount * later
        returns.append(later)
    return values.new_tensor(returns[::-1])


def _over_tokens(values: Float[Tensor, " N"], ends: Int[Tensor, " S"], length: int) -> Float[Tensor, " L"]:
    """Repeat each step's value over its tokens. A completion without steps gets what a first step would, 0 where there is no value."""
    step_of_token = torch.searchsorted(ends, torch.arange(length), right=True)
    return torch.cat([values, values.new_zeros(1)])[step_of_token].float()
