"""Each loss against its paper's formula, written as loops over Python floats; the objective that is built from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rlvr.algorithm_settings import AlgorithmSettings, CorrectionConfig, KlConfig
from rlvr.algorithms import CispoConfig, DapoConfig, DrGrpoConfig, GmpoConfig, GrpoConfig, GspoConfig, RlooConfig, SapoConfig
from rlvr.batch import LossInputs, LossOutput, Totals
from rlvr.losses import CrossEntropyObjective, aggregate, build_objective, correct
from verifiers.errors import UnknownName

# Three sequences of 4, 3 and 2 tokens. Ratios run from about 0.3 to 6, advantages have both signs, so every branch of a clip is taken.
MASK = [[True, True, True, True], [True, True, True, False], [True, True, False, False]]
CURRENT = [[-0.5, -1.2, -0.1, -2.0], [-0.7, -0.3, -1.9, 0.0], [-1.1, -0.2, 0.0, 0.0]]
OLD = [[-0.6, -0.9, -1.3, -0.8], [-2.5, -0.31, -1.2, 0.0], [-1.1, -1.0, 0.0, 0.0]]
BEHAVIOR = [[-0.6, -0.9, -1.2, -2.0], [-2.4, -0.3, -1.3, 0.0], [-1.1, -0.1, 0.0, 0.0]]
REFERENCE = [[-0.9, -1.0, -0.4, -1.5], [-0.7, -0.8, -1.0, 0.0], [-1.3, -0.7, 0.0, 0.0]]
ENTROPY = [[0.9, 0.4, 1.1, 0.2], [0.3, 0.8, 0.5, 0.0], [0.6, 0.7, 0.0, 0.0]]
ADVANTAGES = [1.5, -0.7, 0.4]
TOTALS = Totals(tokens=9, sequences=3, max_new_tokens=4)
LENGTHS = [4, 3, 2]

Token = Callable[[int, int], float]


def hand_made(**changes: torch.Tensor | None) -> LossInputs:
    tensor = torch.tensor
    inputs = LossInputs(
        logprobs=tensor(CURRENT, requires_grad=True),
        old_logprobs=tensor(OLD),
        behavior_logprobs=tensor(BEHAVIOR),
        reference_logprobs=tensor(REFERENCE),
        advantages=tensor(ADVANTAGES).unsqueeze(1).expand(3, 4),
        mask=tensor(MASK),
        entropy=tensor(ENTROPY),
    )
    return replace(inputs, **changes)


def ratio(b: int, t: int) -> float:
    return math.exp(CURRENT[b][t] - OLD[b][t])


def clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def token_mean(token: Token) -> float:
    return sum(token(b, t) for b in range(3) for t in range(LENGTHS[b])) / 9


def sequence_mean(token: Token) -> float:
    return sum(sum(token(b, t) for t in range(LENGTHS[b])) / LENGTHS[b] for b in range(3)) / 3


def objective_of(config: AlgorithmSettings) -> float:
    return float(build_objective(config)(hand_made(), TOTALS)[0])


def test_grpo_is_the_clipped_surrogate_with_k3_averaged_per_sequence() -> None:
    def token(b: int, t: int) -> float:
        r, a, x = ratio(b, t), ADVANTAGES[b], REFERENCE[b][t] - CURRENT[b][t]
        return -(min(r * a, clamp(r, 0.8, 1.2) * a) - 0.04 * (math.exp(x) - x - 1))

    assert objective_of(GrpoConfig()) == pytest.approx(sequence_mean(token), rel=1e-5)


def test_dapo_clips_higher_and_averages_over_tokens() -> None:
    def token(b: int, t: int) -> float:
        r, a = ratio(b, t), ADVANTAGES[b]
        return -min(r * a, clamp(r, 0.8, 1.28) * a)

    assert objective_of(DapoConfig()) == pytest.approx(token_mean(token), rel=1e-5)


def test_dr_grpo_divides_by_sequences_times_the_limit() -> None:
    def token(b: int, t: int) -> float:
        r, a = ratio(b, t), ADVANTAGES[b]
        return -min(r * a, clamp(r, 0.8, 1.2) * a)

    assert objective_of(DrGrpoConfig()) == pytest.approx(token_mean(token) * 9 / (3 * 4), rel=1e-5)


def test_rloo_sums_the_log_probs_of_each_sequence() -> None:
    expected = sum(-ADVANTAGES[b] * sum(CURRENT[b][: LENGTHS[b]]) for b in range(3)) / 3
    assert objective_of(RlooConfig()) == pytest.approx(expected, rel=1e-5)


def test_gspo_clips_the_geometric_mean_of_the_ratios() -> None:
    def sequence(b: int) -> float:
        s = math.prod(ratio(b, t) for t in range(LENGTHS[b])) ** (1 / LENGTHS[b])
        return -min(s * ADVANTAGES[b], clamp(s, 1 - 3e-4, 1 + 4e-4) * ADVANTAGES[b])

    assert objective_of(GspoConfig()) == pytest.approx(sum(map(sequence, range(3))) / 3, rel=1e-5)


def test_gspos_token_form_has_the_gradient_of_the_sequence_ratio() -> None:
    config = GspoConfig(clip_low=1.0, clip_high=9.0)
    inputs = hand_made()
    build_objective(config)(inputs, TOTALS)[0].backward()
    for b in range(3):
        s = math.prod(ratio(b, t) for t in range(LENGTHS[b])) ** (1 / LENGTHS[b])
        # d(-A s)/d(log pi_t) = -A s / length, averaged over 3 sequences
        expected = [-ADVANTAGES[b] * s / LENGTHS[b] / 3] * LENGTHS[b] + [0.0] * (4 - LENGTHS[b])
        assert inputs.logprobs.grad[b].tolist() == pytest.approx(expected, rel=1e-5)


def test_cispo_weighs_the_log_prob_with_the_clipped_ratio() -> None:
    def token(b: int, t: int) -> float:
        return -clamp(ratio(b, t), 0.0, 3.0) * ADVANTAGES[b] * CURRENT[b][t]

    assert objective_of(CispoConfig(clip_high=2.0)) == pytest.approx(token_mean(token), rel=1e-5)


def test_a_token_that_cispo_clips_keeps_its_gradient() -> None:
    inputs = hand_made()
    build_objective(CispoConfig(clip_high=2.0))(inputs, TOTALS)[0].backward()
    # The first token of sequence 1 has ratio exp(1.8) = 6, clipped to 3: gradient -3 * -0.7 / 9.
    assert float(inputs.logprobs.grad[1, 0]) == pytest.approx(3 * 0.7 / 9)


def test_sapo_gates_softly_by_the_sign_of_the_advantage() -> None:
    def token(b: int, t: int) -> float:
        tau = 1.0 if ADVANTAGES[b] > 0 else 1.05
        return -4 / tau / (1 + math.exp(-tau * (ratio(b, t) - 1))) * ADVANTAGES[b]

    assert objective_of(SapoConfig()) == pytest.approx(sequence_mean(token), rel=1e-5)


def test_sapo_at_ratio_one_has_the_gradient_of_reinforce() -> None:
    inputs = hand_made(old_logprobs=torch.tensor(CURRENT))
    build_objective(SapoConfig())(inputs, TOTALS)[0].backward()
    assert float(inputs.logprobs.grad[1, 0]) == pytest.approx(0.7 / (3 * 3))


def test_gmpo_takes_the_geometric_mean_of_ratios_clipped_against_the_advantage() -> None:
    def sequence(b: int) -> float:
        sign = 1 if ADVANTAGES[b] > 0 else -1
        # The paper's form: powers of the advantage's sign inside and outside of the minimum.
        product = 1.0
        for t in range(LENGTHS[b]):
            clipped = clamp(ratio(b, t), math.exp(-0.4), math.exp(0.4))
            product *= min(ratio(b, t) ** sign, clipped**sign) ** sign
        return -(product ** (1 / LENGTHS[b])) * ADVANTAGES[b]

    assert objective_of(GmpoConfig()) == pytest.approx(sum(map(sequence, range(3))) / 3, rel=1e-5)


def test_the_dual_clip_bounds_what_a_bad_token_can_cost() -> None:
    def token(b: int, t: int) -> float:
        r, a = ratio(b, t), ADVANTAGES[b]
        surrogate = min(r * a, clamp(r, 0.8, 1.28) * a)
        return -(max(surrogate, 3.0 * a) if a < 0 else surrogate)

    assert objective_of(DapoConfig(clip_dual=3.0)) == pytest.approx(token_mean(token), rel=1e-5)
    # Sequence 1 (A < 0) holds the ratio 6: without the bound the loss is larger by (6.05 - 3) * 0.7 / 9.
    assert objective_of(DapoConfig()) - objective_of(DapoConfig(clip_dual=3.0)) == pytest.approx((math.exp(1.8) - 3) * 0.7 / 9, rel=1e-4)


@pytest.mark.parametrize(
    ("estimator", "kl"),
    [("k1", lambda d: d), ("k2", lambda d: d * d / 2), ("k3", lambda d: math.exp(-d) - 1 + d)],
)
def test_the_kl_in_the_loss_adds_its_estimator(estimator, kl) -> None:
    added = token_mean(lambda b, t: 0.5 * kl(CURRENT[b][t] - REFERENCE[b][t]))
    config = DapoConfig(kl=KlConfig(coefficient=0.5, estimator=estimator))
    assert objective_of(config) - objective_of(DapoConfig()) == pytest.approx(added, rel=1e-4)


def test_a_weighted_k3_has_the_gradient_of_the_kl_at_the_first_update() -> None:
    # Over all three answers of a one-token policy: the expected gradient of r * k3 is that of KL(pi || ref); of k3 alone it is not.
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).log()
    logprobs = logits.log_softmax(0)
    (expected,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits, retain_graph=True)
    gradients = {}
    for weigh in (True, False):
        config = DapoConfig(kl=KlConfig(coefficient=1.0, weigh_by_ratio=weigh))
        gradients[weigh] = torch.zeros(3, dtype=torch.float64)
        for answer in range(3):
            one = logprobs[answer].view(1, 1)
            zero = torch.zeros(1, 1, dtype=torch.float64)
            inputs = LossInputs(one, one.detach(), one.detach(), reference[answer].view(1, 1), zero, torch.ones(1, 1, dtype=torch.bool))
            loss, _ = build_objective(config)(inputs, Totals(tokens=1, sequences=1, max_new_tokens=1))
            gradients[weigh] += logprobs[answer].exp().item() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.allclose(gradients[True], expected)
    assert not torch.allclose(gradients[False], expected, atol=1e-2)


def test_the_controllers_coefficient_replaces_the_configured_one() -> None:
    kl = KlConfig(coefficient=0.5)
    changed = build_objective(DapoConfig(kl=kl), kl_coefficient=0.25)(hand_made(), TOTALS)[0]
    assert float(changed) == pytest.approx(objective_of(DapoConfig(kl=KlConfig(coefficient=0.25))))


def test_a_kl_in_the_reward_is_not_in_the_loss_as_well() -> None:
    config = RlooConfig(kl=KlConfig(coefficient=0.5, where="reward"))
    assert objective_of(config) == objective_of(RlooConfig())
    assert not build_objective(config).needs_reference
    assert config.needs_reference


def test_the_entropy_bonus_lowers_the_loss() -> None:
    bonus = token_mean(lambda b, t: 0.01 * ENTROPY[b][t])
    assert objective_of(DapoConfig()) - objective_of(DapoConfig(entropy_coefficient=0.01)) == pytest.approx(bonus, rel=1e-3)


@pytest.mark.parametrize(
    ("correction", "weight"),
    [
        (CorrectionConfig(high=1.5), lambda rho, _: min(rho, 1.5)),
        (CorrectionConfig(mode="mask", low=0.5, high=1.5), lambda rho, _: rho if 0.5 <= rho <= 1.5 else 0.0),
        (CorrectionConfig(level="sequence", high=1.5), lambda _, rho: min(rho, 1.5)),
        (CorrectionConfig(level="sequence", mode="mask", low=0.5, high=1.5), lambda _, rho: rho if 0.5 <= rho <= 1.5 else 0.0),
    ],
    ids=["TIS", "IcePop", "sequence TIS", "MIS"],
)
def test_the_correction_multiplies_the_policy_gradient(correction, weight) -> None:
    def token(b: int, t: int) -> float:
        r, a = ratio(b, t), ADVANTAGES[b]
        of_token = math.exp(OLD[b][t] - BEHAVIOR[b][t])
        of_sequence = math.exp(sum(OLD[b][s] - BEHAVIOR[b][s] for s in range(LENGTHS[b])))
        return -min(r * a, clamp(r, 0.8, 1.28) * a) * weight(of_token, of_sequence)

    config = DapoConfig(correction=correction)
    assert objective_of(config) == pytest.approx(token_mean(token), rel=1e-5)


def test_the_default_correction_acts_only_where_rollouts_may_be_off_policy() -> None:
    on_policy, _ = build_objective(DapoConfig())(hand_made(), TOTALS)
    off_policy, stats = build_objective(DapoConfig(), off_policy=True)(hand_made(), TOTALS)
    explicit, _ = build_objective(DapoConfig(correction=CorrectionConfig(mode="clip", low=0.8, high=1.2)))(hand_made(), TOTALS)
    assert float(off_policy) == float(explicit)
    assert "correction_weight" in stats
    assert float(build_objective(DapoConfig(correction=None), off_policy=True)(hand_made(), TOTALS)[0]) == float(on_policy)


def test_a_clipped_correction_stops_only_what_already_went_where_the_advantage_pushes() -> None:
    """Ratios 0.5, 0.5, 1.5, 1.5, 3, 1 with advantages +, -, +, -, -, +: the second and third went far enough; the fifth is truncated."""
    ratio = torch.tensor([[0.5, 0.5, 1.5, 1.5, 3.0, 1.0]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, -1.0, 1.0]])
    mask = torch.ones_like(ratio, dtype=torch.bool)
    result = correct(ratio.log(), torch.zeros_like(ratio), mask, CorrectionConfig(mode="clip", low=0.8, high=1.2), advantages)
    torch.testing.assert_close(result.weight, torch.tensor([[0.5, 0.0, 0.0, 1.5, 2.0, 1.0]]))
    assert result.outside.tolist() == [[False, True, True, False, False, False]]


def test_with_one_update_a_step_the_clipped_correction_is_ppos_clip_against_the_engine() -> None:
    """The gradient of A * w * log pi at old = current equals that of min(r A, clip(r) A) with r = current / behavior (PPO, equation 7)."""
    inputs = hand_made()
    logprobs = inputs.logprobs.detach().clone().requires_grad_()
    fresh = replace(inputs, logprobs=logprobs, old_logprobs=logprobs.detach())
    config = DapoConfig(correction=CorrectionConfig(mode="clip", low=0.8, high=1.28, truncate_at=100.0))
    build_objective(config)(fresh, TOTALS)[0].backward()
    other = inputs.logprobs.detach().clone().requires_grad_()
    against_engine = replace(inputs, logprobs=other, old_logprobs=inputs.behavior_logprobs)
    build_objective(DapoConfig(correction=None))(against_engine, TOTALS)[0].backward()
    assert logprobs.grad.abs().sum() > 0
    torch.testing.assert_close(logprobs.grad, other.grad)


def test_the_correction_leaves_the_kl_alone() -> None:
    kl = KlConfig(coefficient=0.5)
    drop_all = CorrectionConfig(mode="mask", low=1e5, high=1e6)
    expected = token_mean(lambda b, t: 0.5 * (math.exp(REFERENCE[b][t] - CURRENT[b][t]) - 1 + CURRENT[b][t] - REFERENCE[b][t]))
    assert objective_of(DapoConfig(kl=kl, correction=drop_all)) == pytest.approx(expected, rel=1e-5)


def test_the_correction_reports_what_lies_outside_its_bounds() -> None:
    inputs = hand_made()
    result = correct(inputs.old_logprobs, inputs.behavior_logprobs, inputs.mask, CorrectionConfig(high=1.5), inputs.advantages)
    # Only old - behavior = 1.2 (sequence 0, token 3) has exp(.) = 3.3 > 1.5.
    assert result.outside.nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_correction_is_a_weight_without_gradient_and_blind_outside_the_mask(level) -> None:
    old = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    behavior, mask = torch.tensor([[-1.5, -2.0, float("nan")]]), torch.tensor([[True, True, False]])
    result = correct(old, behavior, mask, CorrectionConfig(level=level, mode="mask", low=0.1, high=9.0), torch.ones_like(old))
    # Token ratios exp(0.5) and 1; as one sequence exp(0.5) for both.
    assert result.weight[0, :2].tolist() == pytest.approx([math.exp(0.5), 1.0 if level == "token" else math.exp(0.5)])
    assert not result.weight.requires_grad
    assert not result.outside.any()


def test_cross_entropy_is_the_mean_negative_log_prob_of_given_tokens() -> None:
    loss, stats = CrossEntropyObjective()(hand_made(), TOTALS)
    assert float(loss) == pytest.approx(token_mean(lambda b, t: -CURRENT[b][t]))
    assert stats["cross_entropy"][0, 3] == 2.0


@pytest.mark.parametrize(("how", "value"), [("token_mean", 2.0), ("sequence_mean", 3.0), ("sequence_sum", 4.0), ("constant", 1.0)])
def test_the_four_ways_to_aggregate(how, value: float) -> None:
    # Sequences 1, 1, 1 and 5, limit 4: 8 / 4, (1 + 5) / 2, 8 / 2, 8 / (2 * 4).
    losses = torch.tensor([[1.0, 1.0, 1.0], [5.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert float(aggregate(losses, mask, Totals(tokens=4, sequences=2, max_new_tokens=4), how)) == value


def test_a_loss_that_is_nan_outside_the_mask_is_still_averaged_inside() -> None:
    loss = aggregate(torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]]), Totals(1, 1, 2), "token_mean")
    assert float(loss) == 1.0


@pytest.mark.parametrize("config", [GrpoConfig(kl=KlConfig()), GspoConfig(), CispoConfig(), SapoConfig(), GmpoConfig()])
def test_a_first_update_has_the_plain_policy_gradient_and_a_ratio_of_exactly_one(config: AlgorithmSettings) -> None:
    logprobs = torch.tensor(CURRENT, requires_grad=True)
    inputs = hand_made(logprobs=logprobs, old_logprobs=logprobs.detach())
    config = type(config)(**config.model_dump() | {"aggregation": "sequence_mean"})
    loss, stats = build_objective(config)(inputs, TOTALS)
    loss.backward()
    assert torch.equal(stats["ratio"], torch.ones(3, 4))
    assert torch.equal(stats["approx_kl"], torch.zeros(3, 4))
    expected = torch.tensor([[-ADVANTAGES[b] / LENGTHS[b] / 3 * MASK[b][t] for t in range(4)] for b in range(3)])
    assert torch.allclose(logprobs.grad, expected, rtol=1e-5, atol=0)


def test_the_clip_shares_tell_where_the_gradient_is_gone() -> None:
    _, stats = build_objective(DapoConfig())(hand_made(), TOTALS)
    # A > 0 and ratio > 1.28: exp(1.2) in sequence 0, exp(0.8) in sequence 2. A < 0 and ratio < 0.8: exp(-0.7) in sequence 1.
    assert stats["clip_high_share"].nonzero().tolist() == [[0, 2], [2, 1]]
    assert stats["clip_low_share"].nonzero().tolist() == [[1, 2]]
    assert stats["clip_share"].sum() == 3
    assert float(stats["ratio_max"].max()) == pytest.approx(math.exp(1.8))


def test_statistics_carry_no_gradient() -> None:
    config = DapoConfig(kl=KlConfig(coefficient=0.1), correction=CorrectionConfig(), clip_dual=3.0)
    _, stats = build_objective(config)(hand_made(), TOTALS)
    assert {"ratio", "ratio_max", "approx_kl", "reference_kl", "entropy", "correction_weight", "clip_dual_share"} <= set(stats)
    assert not any(value.requires_grad for value in stats.values())
    assert all(value.shape == (3, 4) for value in stats.values())


def test_an_enormous_ratio_stays_finite() -> None:
    inputs = hand_made(old_logprobs=torch.full((3, 4), -500.0), advantages=torch.zeros(3, 4))
    assert float(build_objective(GrpoConfig(kl=KlConfig()))(inputs, TOTALS)[0]) == 0.0


def test_rows_of_zero_advantage_may_be_skipped_only_when_nothing_else_acts_on_them() -> None:
    assert build_objective(DapoConfig()).skips_zero_advantage
    assert build_objective(RlooConfig(kl=KlConfig(coefficient=0.1, where="reward"))).skips_zero_advantage
    assert not build_objective(GrpoConfig()).skips_zero_advantage
    assert not build_objective(DapoConfig(entropy_coefficient=0.01)).skips_zero_advantage
    assert not build_objective(DapoConfig(loss=f"{__name__}:squared")).skips_zero_advantage


@pytest.mark.parametrize("config", [DapoConfig(), RlooConfig(), GspoConfig(), CispoConfig(), SapoConfig(), GmpoConfig()])
def test_a_row_that_may_be_skipped_has_exactly_zero_gradient(config: AlgorithmSettings) -> None:
    inputs = hand_made(advantages=torch.tensor([[0.0], [-0.7], [0.0]]).expand(3, 4))
    objective = build_objective(config)
    assert objective.skips_zero_advantage
    objective(inputs, TOTALS)[0].backward()
    assert not inputs.logprobs.grad[[0, 2]].any()
    assert inputs.logprobs.grad[1].any()


def test_a_missing_reference_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(ValueError, match="kl.coefficient is not zero"):
        build_objective(GrpoConfig())(hand_made(reference_logprobs=None), TOTALS)


def test_a_missing_entropy_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(ValueError, match="entropy_coefficient is not zero"):
        build_objective(DapoConfig(entropy_coefficient=0.1))(hand_made(entropy=None), TOTALS)


def squared(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    return LossOutput(inputs.logprobs.square())


def averaged(inputs: LossInputs, config: AlgorithmSettings) -> LossOutput:
    return LossOutput(inputs.logprobs.mean())


def test_a_loss_of_ones_own_is_named_by_its_path() -> None:
    assert objective_of(DapoConfig(loss=f"{__name__}:squared")) == pytest.approx(token_mean(lambda b, t: CURRENT[b][t] ** 2))


def test_a_loss_that_averages_by_itself_is_refused() -> None:
    # A TypeError where the shapes of all annotations are checked (RLVR_TYPECHECK=1).
    with pytest.raises((ValueError, TypeError), match="not one value a token|token_loss"):
        objective_of(DapoConfig(loss=f"{__name__}:averaged"))


def test_a_misspelt_loss_lists_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'clipped_surrogate'"):
        build_objective(DapoConfig(loss="clipped_surogate"))
