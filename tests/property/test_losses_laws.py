"""Laws of the objectives: invariant to the split into micro-batches, blind to what is outside the mask."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.algorithm_settings import AlgorithmSettings, CorrectionConfig
from rlvr.algorithms import CispoConfig, DapoConfig, DrGrpoConfig, GmpoConfig, GrpoConfig, GspoConfig, RlooConfig, SapoConfig
from rlvr.batch import LossInputs, Totals
from rlvr.losses import build_objective
from rlvr.rewards import kl_estimate

CONFIGS = [
    GrpoConfig(correction=CorrectionConfig(level="sequence", mode="mask", low=0.5, high=5.0)),
    DapoConfig(entropy_coefficient=0.01, clip_dual=3.0, correction=CorrectionConfig()),
    DrGrpoConfig(),
    RlooConfig(),
    GspoConfig(clip_low=0.2, clip_high=0.3),
    CispoConfig(),
    SapoConfig(),
    GmpoConfig(),
]
NAMES = [config.name for config in CONFIGS]
OBJECTIVES = {config.name: build_objective(config) for config in CONFIGS}


def draw_inputs(seed: int, rows: int, columns: int) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)

    def logprobs() -> torch.Tensor:
        return -torch.rand(rows, columns, generator=generator).double() * 2

    mask = torch.rand(rows, columns, generator=generator) < 0.7
    return LossInputs(
        logprobs=logprobs(),
        old_logprobs=logprobs(),
        behavior_logprobs=logprobs(),
        reference_logprobs=logprobs(),
        advantages=torch.randn(rows, columns, generator=generator).double(),
        mask=mask,
        entropy=-logprobs(),
    )


def rows_of(inputs: LossInputs, rows: list[int]) -> LossInputs:
    return replace(inputs, **{field.name: getattr(inputs, field.name)[rows] for field in fields(inputs)})


def gradient(config: AlgorithmSettings, inputs: LossInputs, totals: Totals) -> tuple[float, torch.Tensor]:
    logprobs = inputs.logprobs.clone().requires_grad_()
    loss, _ = OBJECTIVES[config.name](replace(inputs, logprobs=logprobs), totals)
    loss.backward()
    return loss.item(), logprobs.grad


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), columns=st.integers(1, 7), data=st.data())
def test_shares_of_micro_batches_sum_to_the_whole(
    config: AlgorithmSettings, seed: int, rows: int, columns: int, data: st.DataObject
) -> None:
    inputs = draw_inputs(seed, rows, columns)
    totals = Totals(tokens=int(inputs.mask.sum()), sequences=rows, max_new_tokens=columns)
    whole, whole_gradient = gradient(config, inputs, totals)
    part_of_row = data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    summed = 0.0
    for part in range(3):
        chosen = [row for row in range(rows) if part_of_row[row] == part]
        if chosen:
            share, share_gradient = gradient(config, rows_of(inputs, chosen), totals)
            summed += share
            assert torch.allclose(share_gradient, whole_gradient[chosen], rtol=1e-12, atol=1e-15)
    assert summed == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), poison=st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e30]))
def test_what_is_outside_the_mask_matters_to_nothing(config: AlgorithmSettings, seed: int, poison: float) -> None:
    inputs = draw_inputs(seed, 4, 5)
    totals = Totals(tokens=max(int(inputs.mask.sum()), 1), sequences=4, max_new_tokens=5)
    poisoned = {
        field.name: torch.where(inputs.mask, getattr(inputs, field.name), poison) for field in fields(inputs) if field.name != "mask"
    }
    clean_loss, clean_gradient = gradient(config, inputs, totals)
    loss, poisoned_gradient = gradient(config, replace(inputs, **poisoned), totals)
    assert loss == clean_loss
    assert torch.equal(poisoned_gradient, clean_gradient)
    assert not poisoned_gradient[~inputs.mask].any()


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), padding=st.integers(1, 5))
def test_padding_changes_no_gradient(config: AlgorithmSettings, seed: int, padding: int) -> None:
    inputs = draw_inputs(seed, 3, 4)
    totals = Totals(tokens=max(int(inputs.mask.sum()), 1), sequences=3, max_new_tokens=4)
    padded = {field.name: torch.nn.functional.pad(getattr(inputs, field.name), (0, padding)) for field in fields(inputs)}
    _, plain = gradient(config, inputs, totals)
    _, wide = gradient(config, replace(inputs, **padded), totals)
    assert torch.allclose(wide[:, :4], plain, rtol=1e-12, atol=1e-15)
    assert not wide[:, 4:].any()


@given(policy=st.floats(-30, 0), reference=st.floats(-30, 0))
def test_k2_and_k3_are_never_negative(policy: float, reference: float) -> None:
    logprobs = torch.tensor(policy, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)
    assert float(kl_estimate(*logprobs, "k2")) >= 0
    assert float(kl_estimate(*logprobs, "k3")) >= 0
