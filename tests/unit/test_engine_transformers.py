from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlvr.attention import IMPLEMENTATION
from rlvr.compute import ComputeThread
from rlvr.engines.fused import FusedNetwork
from rlvr.engines.networks import ModuleCopy, PlannedNetwork
from rlvr.policy.loading import _checkpoint_layers
from rlvr.types import Sampling
from tests.unit.engine_models import END, VOCABULARY, complete, engine_over, tiny_model

PROMPTS = [[3, 4, 5], [6], [7, 8, 9, 10, 11, 12], [3, 5], [7, 8, 9, 10, 11, 12]]
SMALL = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    eos_token_id=END,
    bos_token_id=None,
    pad_token_id=0,
    initializer_range=0.25,
)


@pytest.fixture(scope="module")
def compute():
    with ComputeThread(num_threads=1) as thread:
        yield thread


def build(model_class, config):
    """A model of another family with rlvr's attention."""
    config._attn_implementation = IMPLEMENTATION
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config).eval()


def reference_greedy(model, prompt: list[int], limit: int) -> list[int]:
    tokens = torch.tensor([prompt])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=limit, do_sample=False, pad_token_id=0)
    return out[0, len(prompt) :].tolist()


def full_logprobs(model, prompt, completion, temperature=1.0) -> torch.Tensor:
    """Log-probs of the completion's tokens from one forward over the whole sequence: [length, V]."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0].float()
    return torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, -1)


@pytest.mark.parametrize("max_batch_size", [64, 3, 1])
@pytest.mark.parametrize("attention", ["rlvr", "sdpa"])
def test_greedy_equals_transformers_generate_for_mixed_prompts_groups_and_refilled_rows(compute, attention, max_batch_size):
    engine = engine_over(tiny_model(attention=attention), compute, max_batch_size=max_batch_size)
    limits = [40, 7, 23, 1, 40]
    requests = [(p, Sampling(limit, temperature=0.0, num_samples=2)) for p, limit in zip(PROMPTS, limits, strict=True)]
    reference = tiny_model(attention="sdpa")
    for prompt, limit, group in zip(PROMPTS, limits, complete(engine, *requests), strict=True):
        expected = reference_greedy(reference, prompt, limit)
        assert [list(completion.token_ids) for completion in group] == [expected, expected]


@pytest.mark.parametrize("attention", ["rlvr", "sdpa"])
def test_logprobs_equal_a_full_forward_at_the_sampling_temperature(compute, attention):
    model = tiny_model(attention=attention)
    engine = engine_over(model, compute, max_batch_size=4)
    requests = [(p, Sampling(30, temperature=t, num_samples=3, seed=5)) for p, t in zip(PROMPTS, [1.0, 0.7, 1.3, 1.0, 0.5], strict=True)]
    for (prompt, sampling), group in zip(requests, complete(engine, *requests), strict=True):
        for completion in group:
            ids = torch.tensor(completion.token_ids)
            expected = full_logprobs(model, prompt, completion.token_ids, sampling.temperature).gather(1, ids[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_greedy_logprobs_are_those_of_the_untempered_distribution(compute):
    model = tiny_model()
    [[completion]] = complete(engine_over(model, compute), ([3, 4], Sampling(12, temperature=0.0)))
    expected = full_logprobs(model, [3, 4], completion.token_ids).max(-1).values
    torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_sampled_frequencies_match_the_softmax(compute):
    model = tiny_model()
    num_samples = 20_000
    engine = engine_over(model, compute, max_batch_size=num_samples)
    [group] = complete(engine, ([3, 4, 5], Sampling(1, temperature=1.5, num_samples=num_samples, seed=3)))
    counts = Counter(completion.token_ids[0] for completion in group)
    probability = full_logprobs(model, [3, 4, 5], [0], 1.5)[0].exp().tolist()
    common = [token for token in range(VOCABULARY) if num_samples * probability[token] >= 5]
    assert len(common) >= 10
    statistic = sum((counts[t] - num_samples * probability[t]) ** 2 / (num_samples * probability[t]) for t in common)
    # The 99.9 % quantile of chi-square with k degrees of freedom lies below k + 3.3 sqrt(2k) + 7 (Laurent and Massart 2000).
    freedom = len(common) - 1
    assert statistic < freedom + 3.3 * (2 * freedom) ** 0.5 + 7


def test_what_a_row_draws_does_not_depend_on_its_neighbours(compute):
    engine = engine_over(tiny_model(), compute, max_batch_size=5)
    requests = [(p, Sampling(25, num_samples=3, seed=100 + i)) for i, p in enumerate(PROMPTS)]
    together = complete(engine, *requests)
    alone = [complete(engine, request)[0] for request in requests]
    assert [[c.token_ids for c in group] for group in together] == [[c.token_ids for c in group] for group in alone]


def test_samples_of_a_group_differ_and_so_do_seeds(compute):
    engine = engine_over(tiny_model(), compute)
    first, second = complete(
        engine, ([3], Sampling(20, temperature=1.5, num_samples=8, seed=1)), ([3], Sampling(20, temperature=1.5, num_samples=8, seed=2))
    )
    # Two short completions may well be equal; among 23 ** 5 longer ones equality would be a shared random stream.
    long = [c.token_ids for c in [*first, *second] if c.num_tokens >= 5]
    assert len(set(long)) == len(long) >= 8


def test_without_a_seed_every_call_draws_anew(compute):
    engine = engine_over(tiny_model(), compute)
    sampling = Sampling(20, temperature=1.5, num_samples=4)
    assert complete(engine, ([3], sampling)) != complete(engine, ([3], sampling))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_are_bit_identical(compute, dtype):
    requests = [(p, Sampling(30, num_samples=4, seed=i)) for i, p in enumerate(PROMPTS)]
    first = complete(engine_over(tiny_model(), compute, max_batch_size=6, compute_dtype=dtype), *requests)
    second = complete(engine_over(tiny_model(), compute, max_batch_size=6, compute_dtype=dtype), *requests)
    assert first == second


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["rlvr", "sdpa"])
def test_the_next_batch_uses_the_updated_policy_and_carries_its_version(compute, attention, dtype):
    model, updated = tiny_model(0, attention=attention), tiny_model(1, attention=attention)
    engine = engine_over(model, compute, compute_dtype=dtype)
    request = ([3, 4], Sampling(20, temperature=0.0))
    [[before]] = complete(engine, request)
    with torch.no_grad():
        for mine, new in zip(model.parameters(), updated.parameters(), strict=True):
            mine.copy_(new)
    asyncio.run(engine.load_weights((), version=1))
    [[after]] = complete(engine, request)
    [[expected]] = complete(engine_over(updated, compute, compute_dtype=dtype), request)
    assert (before.first_version, before.last_version, after.first_version, after.last_version) == (0, 0, 1, 1)
    assert after.token_ids == expected.token_ids != before.token_ids
    assert after.logprobs == expected.logprobs


def test_loaded_weights_replace_the_modules_and_set_the_version(compute):
    model, other = tiny_model(0), tiny_model(1)
    engine = engine_over(model, compute)
    complete(engine, ([3], Sampling(2)))
    asyncio.run(engine.load_weights(other.state_dict().items(), version=7))
    [[loaded]] = complete(engine, ([3, 4], Sampling(20, temperature=0.0)))
    assert list(loaded.token_ids) == reference_greedy(tiny_model(1, attention="sdpa"), [3, 4], 20)
    assert loaded.first_version == 7


def test_standby_gives_up_the_copies_and_the_next_call_works_the_same(compute):
    engine = engine_over(tiny_model(), compute)
    request = ([3, 4], Sampling(20, seed=1))
    before = complete(engine, request)
    asyncio.run(engine.standby())
    assert complete(engine, request) == before


def test_the_stop_token_is_kept_in_the_tokens_and_left_out_of_the_text(compute):
    engine = engine_over(tiny_model(), compute)
    [group] = complete(engine, ([3, 4], Sampling(60, temperature=1.5, num_samples=64, seed=0)))
    stopped = [completion for completion in group if completion.finish_reason == "stop"]
    assert stopped and len(stopped) < 64
    for completion in group:
        assert (completion.token_ids[-1] == END) == (completion.finish_reason == "stop")
        assert END not in completion.token_ids[:-1]
        assert "<end>" not in completion.text
        assert completion.finish_reason == "stop" or completion.num_tokens == 60
        letters = [chr(ord("a") + token - 2) for token in completion.token_ids if token >= 2]
        assert completion.text.replace(" ", "") == "".join(letters)


def test_top_k_and_top_p_draw_only_from_what_they_keep_and_renormalise(compute):
    model = tiny_model()
    engine = engine_over(model, compute, max_batch_size=256)
    top_k, top_p, plain = complete(
        engine,
        ([3, 4, 5], Sampling(1, temperature=2.0, num_samples=200, top_k=3, seed=0)),
        ([3, 4, 5], Sampling(1, temperature=2.0, num_samples=200, top_p=0.5, seed=0)),
        ([3, 4, 5], Sampling(1, temperature=2.0, num_samples=200, seed=0)),
    )
    probability, token = full_logprobs(model, [3, 4, 5], [0], 2.0)[0].exp().sort(descending=True)
    nucleus = int((probability.cumsum(0) - probability < 0.5).sum())
    assert 1 < nucleus < 10
    for group, kept in ((top_k, 3), (top_p, nucleus), (plain, VOCABULARY)):
        allowed = {int(t): float(p / probability[:kept].sum()) for t, p in zip(token[:kept], probability[:kept], strict=True)}
        drawn = {completion.token_ids[0]: completion.logprobs[0] for completion in group}
        assert set(drawn) <= set(allowed)
        assert kept == VOCABULARY or set(drawn) == set(allowed)
        for chosen, logprob in drawn.items():
            assert logprob == pytest.approx(torch.tensor(allowed[chosen]).log().item(), abs=1e-5)


@pytest.mark.parametrize("attention", ["rlvr", "sdpa"])
def test_logprobs_of_given_tokens_equal_a_full_forward(compute, attention):
    model = tiny_model(attention=attention)
    tokens = [3, 9, 4, 17, 5, 1, 2]
    values = asyncio.run(engine_over(model, compute).logprobs(tokens))
    expected = full_logprobs(model, tokens[:1], tokens[1:], 1.0).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    assert values[0] == 0.0
    torch.testing.assert_close(torch.tensor(values[1:]), expected, atol=1e-5, rtol=0)


def test_bfloat16_stays_close_to_float32(compute):
    model = tiny_model()
    tokens = [3, 9, 4, 17, 5, 1, 2] * 6
    exact = torch.tensor(asyncio.run(engine_over(model, compute).logprobs(tokens)))
    rounded = torch.tensor(asyncio.run(engine_over(model, compute, compute_dtype=torch.bfloat16).logprobs(tokens)))
    # bfloat16 keeps 8 bits, so logits of size 3 carry an error of about 0.01; far less than a wrong weight would give.
    assert 1e-4 < (exact - rounded).abs().mean() < 0.03


def test_the_module_keeps_its_training_mode_and_its_weights_need_gradients_still(compute):
    model = tiny_model().train()
    complete(engine_over(model, compute), ([3], Sampling(4)))
    # Asked on the compute thread: the caller has its completions slightly before the batch is over.
    assert asyncio.run(compute.run(lambda: model.training))
    model(torch.tensor([[3, 4]])).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, tie_word_embeddings=False), FusedNetwork),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SMALL, tie_word_embeddings=True), FusedNetwork),
    "mistral": (MistralForCausalLM, MistralConfig(**SMALL, sliding_window=None), FusedNetwork),
    "mistral with a window": (MistralForCausalLM, MistralConfig(**SMALL, sliding_window=6), PlannedNetwork),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**SMALL, sliding_window=6, query_pre_attn_scalar=8), PlannedNetwork),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_decode_like_transformers_and_take_the_compact_decoder_only_where_it_fits(compute, family, caplog):
    model_class, config, network = FAMILIES[family]
    model = build(model_class, config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    engine = engine_over(model, compute, max_batch_size=3)
    with caplog.at_level(logging.WARNING):
        groups = complete(engine, *[(p, Sampling(20, temperature=0.0)) for p in PROMPTS])
    assert type(engine._network) is network
    assert ("slower" in caplog.text) == (network is PlannedNetwork)
    model.set_attn_implementation("eager")
    for prompt, [completion] in zip(PROMPTS, groups, strict=True):
        assert list(completion.token_ids) == reference_greedy(model, prompt, 20)


def test_a_module_of_the_right_shape_with_other_arithmetic_is_found_out(compute, caplog):
    model = tiny_model()
    attention = model.model.layers[1].self_attn
    attention.o_proj.register_forward_hook(lambda module, args, output: output * 1.01)
    engine = engine_over(model, compute)
    complete(engine, ([3], Sampling(2)))
    assert type(engine._network) is PlannedNetwork
    assert "log-probs differ" in caplog.text


def test_decoding_leaves_every_module_in_its_mode(compute):
    """Gradient checkpointing wants the layers in training mode and the model around them not; after a batch it must still be on."""
    model = tiny_model()
    _checkpoint_layers(model)
    modes = [module.training for module in model.modules()]
    complete(engine_over(model, compute), ([3, 4, 5], Sampling(4)))
    assert any(modes) and not all(modes)
    # Asked on the thread that decoded, as an update is.
    assert asyncio.run(compute.run(lambda: [module.training for module in model.modules()])) == modes


def test_a_copy_in_another_type_decodes_with_its_cache_although_the_layers_are_checkpointed(compute):
    """A checkpointed layer in training mode drops the cache it is given, and every token would be written as if it were the first."""
    sampling = Sampling(12, temperature=0.0)
    [plain] = complete(engine_over(tiny_model(attention="eager"), compute, compute_dtype=torch.bfloat16), ([3, 4, 5], sampling))
    model = tiny_model(attention="eager")
    _checkpoint_layers(model)
    [checkpointed] = complete(engine_over(model, compute, compute_dtype=torch.bfloat16), ([3, 4, 5], sampling))
    assert checkpointed == plain


def test_low_rank_adapters_are_merged_while_decoding(compute):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    engine = engine_over(model, compute)
    [[completion]] = complete(engine, ([3, 4, 5], Sampling(20, temperature=0.0)))
    assert type(engine._network) is FusedNetwork
    assert list(completion.token_ids) == reference_greedy(model, [3, 4, 5], 20)
    with model.disable_adapter():
        assert list(completion.token_ids) != reference_greedy(model, [3, 4, 5], 20)


def test_a_failure_while_decoding_reaches_everyone_who_waits_and_the_engine_lives_on(compute):
    engine = engine_over(tiny_model(), compute)

    async def main() -> list[BaseException | list]:
        beyond_vocabulary = [VOCABULARY + 5]
        tasks = [asyncio.create_task(engine.generate(prompt, Sampling(4))) for prompt in ([3], beyond_vocabulary, [4])]
        return [await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20) for task in tasks]

    assert all(isinstance(error, IndexError) for [error] in asyncio.run(main()))
    assert len(complete(engine, ([3], Sampling(4)))) == 1


def test_a_caller_that_leaves_drops_its_rows_and_nobody_elses(compute):
    engine = engine_over(tiny_model(eos_token_id=None), compute, max_batch_size=4)
    engine._stop_ids = frozenset()
    request = ([5, 6], Sampling(12, seed=1))
    expected = complete(engine, request)

    async def main() -> list:
        endless = asyncio.create_task(engine.generate([3], Sampling(10_000_000, num_samples=2, seed=2)))
        other = asyncio.create_task(engine.generate(*request))
        await asyncio.sleep(0.3)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        return [await asyncio.wait_for(other, 20), await asyncio.wait_for(engine.generate(*request), 20)]

    assert asyncio.run(main()) == [expected[0], expected[0]]


def test_closing_cancels_who_waits(compute):
    engine = engine_over(tiny_model(eos_token_id=None), compute)
    engine._stop_ids = frozenset()

    async def main() -> None:
        running = asyncio.create_task(engine.generate([3], Sampling(10_000_000)))
        await asyncio.sleep(0.2)
        queued = asyncio.create_task(engine.generate([4], Sampling(10_000_000)))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(engine.close(), 20)
        for task in (running, queued):
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.wait_for(compute.run(int), 20)

    asyncio.run(main())


@pytest.mark.parametrize(("prompt", "sampling"), [([], Sampling(4)), ([3], Sampling(0)), ([3], Sampling(4, num_samples=0))])
def test_a_request_that_asks_for_nothing_is_refused(compute, prompt, sampling):
    with pytest.raises(ValueError, match="at least"):
        asyncio.run(engine_over(tiny_model(), compute).generate(prompt, sampling))


def test_the_padded_path_uses_the_module_itself_when_types_agree():
    model = tiny_model(attention="sdpa")
    assert ModuleCopy(model, torch.float32).model is model
    copied = ModuleCopy(model, torch.bfloat16).model
    assert copied is not model and copied.lm_head.weight.dtype == torch.bfloat16
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
    assert copied.model.rotary_emb.inv_freq.dtype == torch.float32
