"""Each name selects its paper's defaults, an override stays the user's own, and impossible combinations are refused with the remedy."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from rlvr.algorithm_settings import AlgorithmSettings, CorrectionConfig, KlConfig, check_algorithm
from rlvr.algorithms import AlgorithmConfig, DapoConfig, GrpoConfig, RlooConfig

ALGORITHM = TypeAdapter(AlgorithmConfig)
# name: advantage, loss, aggregation, clip_low, clip_high, KL coefficient, KL place
BUNDLES = {
    "grpo": ("group_zscore", "clipped_surrogate", "sequence_mean", 0.2, 0.2, 0.04, "loss"),
    "dr_grpo": ("group_centred", "clipped_surrogate", "constant", 0.2, 0.2, 0.0, "loss"),
    "dapo": ("group_zscore", "clipped_surrogate", "token_mean", 0.2, 0.28, 0.0, "loss"),
    "rloo": ("leave_one_out", "reinforce", "sequence_sum", None, None, 0.0, "reward"),
    "reinforce_pp": ("raw_reward", "clipped_surrogate", "token_mean", 0.2, 0.2, 0.001, "reward"),
    "reinforce_pp_baseline": ("group_centred", "clipped_surrogate", "token_mean", 0.2, 0.2, 0.001, "loss"),
    "gspo": ("group_zscore", "gspo", "sequence_mean", 3e-4, 4e-4, 0.0, "loss"),
    "cispo": ("group_zscore", "cispo", "token_mean", 1.0, 4.0, 0.0, "loss"),
    "remax": ("greedy_baseline", "reinforce", "sequence_sum", None, None, 0.0, "reward"),
    "opo": ("optimal_baseline", "reinforce", "sequence_sum", None, None, 0.0, "loss"),
    "gpg": ("group_centred", "reinforce", "token_mean", None, None, 0.0, "loss"),
    "sapo": ("group_zscore", "sapo", "sequence_mean", None, None, 0.0, "loss"),
    "gmpo": ("group_zscore", "gmpo", "sequence_mean", 0.4, 0.4, 0.0, "loss"),
    "vineppo": ("vine", "clipped_surrogate", "token_mean", 0.2, 0.2, 1e-4, "loss"),
    "prime": ("implicit_process", "clipped_surrogate", "token_mean", 0.2, 0.2, 0.0, "loss"),
}


def read(**values: object) -> AlgorithmSettings:
    return ALGORITHM.validate_python(values)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_name_selects_its_papers_bundle(name: str) -> None:
    config = read(name=name)
    bundle = (config.advantage, config.loss, config.aggregation, config.clip_low, config.clip_high, config.kl.coefficient, config.kl.where)
    assert bundle == BUNDLES[name]


@pytest.mark.parametrize("name", BUNDLES)
def test_a_saved_bundle_reads_back_as_itself(name: str) -> None:
    config = read(name=name)
    assert ALGORITHM.validate_json(ALGORITHM.dump_json(config)) == config


def test_every_part_of_dapo_can_be_switched_alone() -> None:
    dapo = DapoConfig()
    for part in ({"clip_high": 0.2}, {"informative_groups_only": False}, {"aggregation": "sequence_mean"}, {"overlong": None}):
        config = read(name="dapo", **part)
        (field,) = part
        others = set(dapo.model_dump()) - {field}
        assert getattr(config, field) != getattr(dapo, field)
        assert all(getattr(config, other) == getattr(dapo, other) for other in others)


def test_a_partial_override_of_the_kl_keeps_the_algorithms_own_coefficient() -> None:
    assert read(name="grpo", kl={"estimator": "k1"}).kl == KlConfig(coefficient=0.04, estimator="k1")
    assert read(name="rloo", kl={"coefficient": 0.05}).kl == KlConfig(coefficient=0.05, estimator="k1", where="reward")


def test_a_kl_given_as_an_object_is_taken_as_it_is() -> None:
    assert GrpoConfig(kl=KlConfig()).kl.coefficient == 0.0


def test_only_remax_needs_a_greedy_baseline_and_only_vineppo_values() -> None:
    assert [name for name in BUNDLES if read(name=name).needs_greedy_baseline] == ["remax"]
    assert [name for name in BUNDLES if read(name=name).needs_values] == ["vineppo"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "grpo", "kl": {"estimater": "k1"}}, "estimater"),
        ({"name": "rloo", "clip_low": 0.2}, "loss=reinforce does not clip, so clip_low=0.2 would do nothing"),
        ({"name": "rloo", "loss": "clipped_surrogate"}, "needs clip_low: set it, for example clip_low=0.2"),
        ({"name": "grpo", "clip_low": 1.5}, "below 0"),
        ({"name": "grpo", "clip_dual": 1.1}, r"must be larger than 1 \+ clip_high = 1.2"),
        ({"name": "gmpo", "clip_dual": 3.0}, "has no dual clip"),
        ({"name": "grpo", "pass_k": 4}, "needs both pass_k and advantage=pass_at_k"),
        ({"name": "grpo", "advantage": "pass_at_k"}, "needs both pass_k and advantage=pass_at_k"),
        ({"name": "dapo", "kl": {"controller": "adaptive"}}, "set a positive coefficient"),
        ({"name": "rloo", "kl": {"weigh_by_ratio": True}}, "kl.where=reward has none"),
        ({"name": "grpo", "correction": {"low": 2.0, "high": 2.0}}, "low must be smaller than high"),
        ({"name": "rloo", "loss": "sapo"}, "select it with name=sapo"),
        ({"name": "grpo", "implicit": {"beta": 0.1}}, "learns no rewards of tokens, so implicit would do nothing"),
        ({"name": "prime", "advantage": "leave_one_out", "implicit": {"beta": 0.1}}, "set advantage=implicit_process"),
        ({"name": "prime", "process": {"outcome_weight": 1.0}}, "does not look at the scores of steps"),
        ({"name": "prime", "batch_scaling": "informative_share"}, "set batch_scaling to whiten or none"),
        ({"name": "prime", "overlong": {}, "implicit": {"outcome_weight": 0}}, "overlong lowers .* or overlong to null"),
        (
            {"name": "prime", "kl": {"coefficient": 0.1, "where": "reward"}, "implicit": {"outcome_weight": 0}},
            "kl.where=reward lowers .* or kl.where=loss",
        ),
        ({"name": "prime", "implicit": {"weight": 0}}, "greater than 0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(**values)


def test_a_loss_by_dotted_path_may_clip_or_not() -> None:
    assert RlooConfig(loss="my_package.losses:mine", clip_low=0.1).clip_low == 0.1
    assert GrpoConfig(loss="my_package.losses:mine", clip_low=None, clip_high=None).clip_high is None


@pytest.mark.parametrize(
    ("values", "group_size", "message"),
    [
        ({"name": "grpo"}, 1, "set batch.group_size to at least 2"),
        ({"name": "reinforce_pp", "informative_groups_only": True}, 1, "informative_groups_only=true"),
        ({"name": "grpo", "advantage": "pass_at_k", "pass_k": 8}, 4, "lower pass_k"),
        ({"name": "prime"}, 1, "advantage=implicit_process compares completions"),
        ({"name": "dapo", "overlong": {"buffer_tokens": 64}}, 4, "must be smaller than max_new_tokens=64"),
    ],
)
def test_what_the_rest_of_the_run_makes_impossible_is_refused(values: dict[str, object], group_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_algorithm(read(**values), group_size=group_size, max_new_tokens=64)


def test_algorithms_without_a_group_baseline_accept_groups_of_one() -> None:
    for name in ("reinforce_pp", "remax"):
        check_algorithm(read(name=name), group_size=1, max_new_tokens=64)


def test_a_correction_defaults_to_truncation_at_two() -> None:
    assert CorrectionConfig() == CorrectionConfig(level="token", mode="truncate", low=0.0, high=2.0)


def test_primes_reward_model_has_the_values_of_its_paper_and_code() -> None:
    config = read(name="prime")
    assert config.learns_rewards and config.informative_groups_only
    assert config.implicit.model_dump() == {
        "beta": 0.05,
        "weight": 1.0,
        "outcome_weight": 1.0,
        "discount": 1.0,
        "learning_rate": 1e-6,
        "max_grad_norm": 10.0,
        "update": "after",
    }


def test_implicit_rewards_go_with_other_losses() -> None:
    assert read(name="rloo", advantage="implicit_process", implicit={"beta": 0.1}).learns_rewards


def test_every_algorithm_is_corrected_off_policy_unless_that_is_switched_off() -> None:
    for name in ("grpo", "dapo", "rloo", "cispo"):
        assert read(name=name).correction == CorrectionConfig(mode="clip", low=0.8, high=1.2, when="off_policy")
    assert read(name="grpo", correction=None).correction is None
    assert read(name="grpo", correction={"high": 3.0}).correction == CorrectionConfig(high=3.0, when="always")
