from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.compute import ComputeThread
from rlvr.engines.picking import Picker, uniforms
from rlvr.types import Sampling
from tests.unit.engine_models import END, VOCABULARY, complete, engine_over, tiny_model

prompts = st.lists(st.integers(2, VOCABULARY - 1), min_size=1, max_size=12)
samplings = st.builds(
    Sampling,
    max_new_tokens=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9]),
    top_k=st.sampled_from([0, 5]),
    num_samples=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)


@pytest.fixture(scope="module")
def compute():
    with ComputeThread(num_threads=1) as thread:
        yield thread


@settings(max_examples=40, deadline=None)
@given(requests=st.lists(st.tuples(prompts, samplings), min_size=1, max_size=6), max_batch_size=st.integers(1, 12))
def test_every_request_gets_its_completions_within_its_limit_and_with_the_right_reason(compute, requests, max_batch_size):
    engine = engine_over(MODEL, compute, max_batch_size=max_batch_size)
    groups = complete(engine, *requests)
    assert [len(group) for group in groups] == [sampling.num_samples for _, sampling in requests]
    for (_, sampling), group in zip(requests, groups, strict=True):
        for completion in group:
            assert 1 <= completion.num_tokens <= sampling.max_new_tokens
            assert len(completion.logprobs) == completion.num_tokens
            assert all(logprob <= 0 for logprob in completion.logprobs)
            ends = [position for position, token in enumerate(completion.token_ids) if token == END]
            assert ends == ([completion.num_tokens - 1] if completion.finish_reason == "stop" else [])
            assert completion.finish_reason == "stop" or completion.num_tokens == sampling.max_new_tokens


@settings(max_examples=25, deadline=None)
@given(requests=st.lists(st.tuples(prompts, samplings), min_size=1, max_size=5), max_batch_size=st.integers(1, 12))
def test_tokens_do_not_depend_on_how_rows_are_batched(compute, requests, max_batch_size):
    small = complete(engine_over(MODEL, compute, max_batch_size=max_batch_size), *requests)
    large = complete(engine_over(MODEL, compute, max_batch_size=64), *requests)
    assert [[c.token_ids for c in group] for group in small] == [[c.token_ids for c in group] for group in large]


@given(key=st.integers(0, 2**63 - 1))
def test_a_rows_noise_is_uniform_and_never_reaches_one(key):
    noise = uniforms(torch.tensor([key])[:, None], torch.arange(4096))[0]
    assert 0 <= noise.min() and noise.max() < 1
    # The mean of n uniforms has a standard deviation of 1 / sqrt(12 n) = 0.0045; seven of them.
    assert abs(noise.mean() - 0.5) < 0.032


@given(logits=st.lists(st.floats(-80, 80), min_size=2, max_size=30), noise=st.floats(0, 1 - 2**-24, width=32), top_k=st.integers(0, 5))
def test_a_token_of_probability_zero_is_never_drawn(logits, noise, top_k):
    picker = Picker.of([Sampling(1, top_k=top_k)], torch.device("cpu"))
    values = torch.tensor([[*logits, float("-inf")]])
    token, logprob = picker.pick(values, torch.tensor([noise]))
    assert torch.isfinite(values[0, token]).all() and torch.isfinite(logprob).all()


@pytest.mark.parametrize("noise", [0.0, 0.5, 1 - 2**-24])
def test_noise_runs_through_the_tokens_in_order_of_their_ids(noise):
    # Probabilities 1/2, 0, 1/2 summed: 1/2, 1/2, 1. Noise 0 falls on token 0; 1/2 and just under 1 on token 2.
    logits = torch.tensor([[0.0, float("-inf"), 0.0]])
    token, logprob = Picker.of([Sampling(1)], torch.device("cpu")).pick(logits, torch.tensor([noise]))
    assert token.item() == (0 if noise == 0 else 2)
    assert logprob.item() == pytest.approx(-0.6931472)


MODEL = tiny_model()
