"""What a TorchPolicy promises: right log-probs, exact first ratio, resumable steps, plain exports, refusals with a remedy."""

from __future__ import annotations

import logging
import math

import pytest
import torch
import transformers as hf

from rlvr.batch import MiniBatch, Totals
from rlvr.config import LoraConfig, ModelConfig, OptimizerConfig
from rlvr.errors import CheckpointError, ConfigError
from rlvr.losses import CrossEntropyObjective
from rlvr.policy.loading import load_model, prepare_model
from rlvr.policy.optimizer import learning_rate
from rlvr.policy.packed_policy import whole_copy
from rlvr.policy.protocol import Term
from rlvr.policy.state_files import read_state
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.supervised import Demonstrations
from tests.unit.policy_models import VOCABULARY, Surrogate, build, build_eager, gradients, load, make_policy, make_samples, minibatch

FAMILIES = ["qwen2", "qwen2_untied", "qwen3", "llama", "mistral_window", "gemma2", "gpt2"]


def plain_logprobs(model, sample, temperature):
    """The definition: one sequence through transformers, log softmax of logits / temperature."""
    ids = torch.tensor([sample.token_ids])
    with torch.no_grad():
        log_p = torch.log_softmax(model(input_ids=ids).logits[0].float() / temperature, -1)
    own = [0.0, *log_p[:-1].gather(1, ids[0, 1:, None]).squeeze(1).tolist()]
    return [value if scored else 0.0 for value, scored in zip(own, sample.loss_mask, strict=True)]


@pytest.mark.parametrize("attention", ["packed", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_equal_a_plain_forward(family, attention):
    policy = make_policy(family, attention=attention, temperature=0.7)
    reference = build_eager(family)
    for sample, values in zip(make_samples(), policy.logprobs(make_samples()), strict=True):
        assert values == pytest.approx(plain_logprobs(reference, sample, 0.7), abs=1e-5)


def test_long_rows_take_the_fused_kernel_and_give_the_same_logprobs(monkeypatch):
    for family in ("qwen2", "mistral_window"):
        expected = make_policy(family).logprobs(make_samples())
        with monkeypatch.context() as patch:
            patch.setattr("rlvr.policy.packed_attention.PLAIN_MAX_AREA", 0)
            actual = make_policy(family).logprobs(make_samples())
        for ours, theirs in zip(actual, expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_long_rows_take_the_fused_kernel_and_give_the_same_gradients(monkeypatch):
    expected = gradients(make_policy("mistral_window"), minibatch(make_samples()))
    monkeypatch.setattr("rlvr.policy.packed_attention.PLAIN_MAX_AREA", 0)
    actual = gradients(make_policy("mistral_window"), minibatch(make_samples()))
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=2e-6, rtol=1e-4)


def test_a_recurrent_model_falls_back_to_padded_rows_with_one_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="rlvr"):
        policy = make_policy("mamba", attention="auto")
    assert policy.loaded.attention == "padded"
    assert [r.message for r in caplog.records if r.name.startswith("rlvr")] == [
        "MambaForCausalLM is trained on padded rows, which is slower: it has no attention backends"
    ]
    reference = build("mamba")
    for sample, values in zip(make_samples(), policy.logprobs(make_samples()), strict=True):
        assert values == pytest.approx(plain_logprobs(reference, sample, 1.0), abs=1e-4)


def test_insisting_on_packing_a_recurrent_model_is_refused():
    with pytest.raises(ConfigError, match="set model.attention=padded"):
        load("mamba", attention="packed")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ratio_is_exactly_one_at_the_first_update(dtype):
    policy = make_policy(dtype=dtype)
    result = policy.update(Term(minibatch(make_samples()), Surrogate()))
    assert result.stats["ratio"] == 1.0 and result.stats["ratio_max"] == 1.0


def test_recorded_old_logprobs_make_the_ratio_move_after_a_step():
    policy = make_policy()
    packed = policy.annotate(minibatch(make_samples()), old=True, reference=False)
    assert policy.update(Term(packed, Surrogate())).stats["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert abs(policy.update(Term(packed, Surrogate())).stats["ratio_max"] - 1) > 1e-3


def test_an_update_lowers_its_own_loss_and_counts_a_version():
    policy = make_policy()
    packed = policy.annotate(minibatch(make_samples()), old=True, reference=False)
    losses = [policy.update(Term(packed, Surrogate(0.0))).loss for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert policy.version == 4


def test_terms_add_up_with_their_weights():
    policy = make_policy()
    one, two = minibatch(make_samples(seed=1)), minibatch(make_samples(seed=2))
    separate = [gradients(policy, part) for part in (one, two)]
    policy.accumulate_gradients(Term(one, Surrogate()), Term(two, Surrogate(), weight=0.5))
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(parameter.grad, separate[0][name] + 0.5 * separate[1][name], atol=1e-6, rtol=1e-4)


def test_an_empty_minibatch_steps_with_gradient_exactly_zero():
    policy = make_policy()
    before = {name: tensor.clone() for name, tensor in policy.weights()}
    result = policy.update(Term(MiniBatch((), Totals(0, 4, 8)), Surrogate()))
    assert (result.loss, result.grad_norm, policy.version) == (0.0, 0.0, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.weights())


def test_a_gradient_that_is_not_finite_is_reported_and_not_stepped_on():
    policy = make_policy()
    before = {name: tensor.clone() for name, tensor in policy.weights()}
    spoil = Surrogate(entropy_weight=float("nan"))
    result = policy.update(Term(minibatch(make_samples()), spoil))
    assert math.isnan(result.grad_norm) and policy.version == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.weights())


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_a_saved_policy_goes_on_bit_identically(tmp_path, kind):
    optimizer = OptimizerConfig(kind=kind, learning_rate=1e-3, warmup_steps=2, schedule="cosine", weight_decay=0.1)
    steps = [minibatch(make_samples(seed=seed)) for seed in range(4)]
    policy = make_policy(optimizer=optimizer, num_steps=4, dtype="bfloat16")
    for packed in steps[:2]:
        policy.update(Term(packed, Surrogate()))
    policy.save(tmp_path / "state")
    expected = [policy.update(Term(packed, Surrogate())) for packed in steps[2:]]
    resumed = make_policy(optimizer=optimizer, num_steps=4, dtype="bfloat16")
    resumed.load(tmp_path / "state")
    assert [resumed.update(Term(packed, Surrogate())) for packed in steps[2:]] == expected
    assert resumed.version == policy.version == 4
    assert all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in zip(resumed.weights(), policy.weights(), strict=True))


def test_moments_in_8_bits_take_a_quarter_and_learn_alike(tmp_path):
    def moments_and_losses(kind):
        optimizer = OptimizerConfig(kind=kind, learning_rate=1e-3)
        policy = TorchPolicy(prepare_model(large_enough(), None, ModelConfig(path="x", dtype="float32", device="cpu")), optimizer=optimizer)
        packed = minibatch(make_samples())
        losses = [policy.update(Term(packed, Surrogate())).loss for _ in range(8)]
        policy.save(tmp_path / kind)
        state = read_state(tmp_path / kind)
        of_matrix = state.moments["model.layers.0.mlp.up_proj.weight"]
        return sum(tensor.nbytes for tensor in of_matrix.values() if tensor.numel() > 256), losses

    plain_bytes, plain = moments_and_losses("adamw")
    small_bytes, small = moments_and_losses("adamw_8bit")
    assert small_bytes < 0.27 * plain_bytes
    # What eight steps won, within a tenth.
    assert abs((small[-1] - small[0]) / (plain[-1] - plain[0]) - 1) < 0.1


def test_adapters_learn_over_a_base_in_4_bits_which_exports_as_numbers(tmp_path):
    lora = LoraConfig(rank=4, quantization="nf4")
    packed = minibatch(make_samples())
    optimizer = OptimizerConfig(learning_rate=1e-2)
    loaded = load("qwen2", lora=lora)
    policy = TorchPolicy(loaded, optimizer=optimizer)
    likely = sum(map(sum, policy.logprobs(make_samples())))
    for _ in range(4):
        policy.update(Term(packed, CrossEntropyObjective()))
    assert sum(map(sum, policy.logprobs(make_samples()))) > likely
    ids = torch.tensor([make_samples()[0].token_ids])
    with torch.no_grad():
        # The exported names and numbers make a plain model that says the same.
        assert {name for name, _ in policy.weights()} == set(build("qwen2").state_dict())
        torch.testing.assert_close(whole_copy(loaded)(ids).logits, loaded.model(ids).logits, atol=1e-4, rtol=0)
        # Four bits are not the numbers themselves.
        assert (build("qwen2")(ids).logits - loaded.model(ids).logits).abs().max() > 1e-3
    policy.save(tmp_path)
    assert not any("base_layer.weight" in name for name in read_state(tmp_path).weights)
    resumed = TorchPolicy(load("qwen2", lora=lora), optimizer=optimizer)
    resumed.load(tmp_path)
    assert resumed.update(Term(packed, Surrogate())) == policy.update(Term(packed, Surrogate()))


def large_enough():
    """Matrices of more than 4096 numbers: smaller ones stay in 32 bits."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=VOCABULARY, **sizes)).eval()


def test_liger_is_refused_where_there_is_no_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigError, match="model.kernels=liger needs a GPU"):
        load("llama", kernels="liger")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Liger's kernels need a GPU")
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_liger_gives_the_logprobs_and_gradients_of_the_models_own_modules(family):
    packed = minibatch(make_samples())
    found = {kernels: gradients(make_policy(family, kernels=kernels, device="cuda"), packed) for kernels in ("own", "liger")}
    for name, gradient in found["own"].items():
        torch.testing.assert_close(found["liger"][name], gradient, atol=1e-5, rtol=1e-4)


def test_a_cut_off_state_file_is_a_checkpoint_error(tmp_path):
    policy = make_policy()
    policy.save(tmp_path)
    file = tmp_path / "policy_00000.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="resume from an older checkpoint"):
        policy.load(tmp_path)


def test_the_reference_stays_where_the_policy_began():
    policy = make_policy(reference=True)
    samples = make_samples()
    began = policy.logprobs(samples)
    packed = policy.annotate(minibatch(samples), old=True, reference=True)
    assert torch.equal(packed.microbatches[0].old_logprobs, packed.microbatches[0].reference_logprobs)
    policy.update(Term(packed, Surrogate()))
    assert policy.logprobs(samples, reference=True) == began
    assert policy.logprobs(samples) != began


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2", "qwen2_untied", "gpt2"])
def test_an_export_is_a_plain_folder_with_equal_logits(family, lora, tmp_path, tiny_model_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = make_policy(family, lora=lora)
    policy.loaded = _with_tokenizer(policy.loaded, AutoTokenizer.from_pretrained(tiny_model_folder))
    policy.update(Term(minibatch(make_samples()), Surrogate()))
    policy.export(tmp_path / "export")
    assert "rlvr" not in (tmp_path / "export" / "config.json").read_text()
    assert not (tmp_path / "export" / "adapter_config.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert plain.config._attn_implementation != "rlvr"
    for sample, values in zip(make_samples(), policy.logprobs(make_samples()), strict=True):
        assert values == pytest.approx(plain_logprobs(plain, sample, 1.0), abs=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "export").eos_token == "<eos>"


def _with_tokenizer(loaded, tokenizer):
    import dataclasses

    return dataclasses.replace(loaded, tokenizer=tokenizer)


def test_weights_are_the_plain_state_dict_tied_names_included():
    policy = make_policy("qwen2")
    plain = build("qwen2").state_dict()
    weights = dict(policy.weights())
    assert weights.keys() == plain.keys() and "lm_head.weight" in weights
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_lora_trains_adapters_only_and_its_reference_is_the_base():
    policy = make_policy(lora=LoraConfig(rank=2))
    samples = make_samples()
    base = policy.logprobs(samples)
    before = build("qwen2").state_dict()
    for _ in range(3):
        policy.update(Term(minibatch(samples), Surrogate()))
    assert policy.logprobs(samples, reference=True) == base
    assert policy.logprobs(samples) != base
    merged = dict(policy.weights())
    assert merged.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], merged[name])}
    assert moved and all("proj" in name and name.endswith("weight") for name in moved)


def test_given_text_is_learned_at_temperature_one_whatever_the_policy_samples_with():
    policy = make_policy(temperature=0.5)
    samples = make_samples()
    demonstrations = Demonstrations(samples.__getitem__, len(samples), 10_000, torch.device("cpu"))
    values = [value for sample in samples for value in plain_logprobs(build_eager("qwen2"), sample, 1.0)]
    num_scored = sum(sum(sample.loss_mask) for sample in samples)
    assert policy.update(demonstrations.term(0)).loss == pytest.approx(-sum(values) / num_scored, rel=1e-5)


def test_weights_that_cannot_be_written_are_an_operating_system_error(tmp_path, tiny_model_folder):
    """Which the checkpoint store turns into one clear line; safetensors has an error of its own."""
    policy = TorchPolicy(load_model(ModelConfig(path=str(tiny_model_folder), device="cpu")), optimizer=OptimizerConfig())
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(OSError, match="I/O error"):
        policy.export(tmp_path)


def test_adapters_and_their_dropout_depend_on_the_seed_alone():
    def after_an_update(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 1)  # What others draw from the global state must not matter.
        config = ModelConfig(path="in memory", dtype="float32", device="cpu", lora=LoraConfig(rank=2, dropout=0.5))
        loaded = prepare_model(build("qwen2"), None, config, seed=seed // 2)
        policy = TorchPolicy(loaded, optimizer=OptimizerConfig(learning_rate=1e-2), seed=seed // 2)
        for _ in range(2):
            policy.update(Term(minibatch(make_samples()), Surrogate()))
        return dict(policy.weights())

    one, same, other = (after_an_update(seed) for seed in (0, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_that_would_not_be_trained_are_refused(target):
    with pytest.raises(ConfigError, match="token embedding or the output projection.*name projections inside the layers, or all-linear"):
        make_policy("qwen2_untied", lora=LoraConfig(rank=2, target_modules=["q_proj", target]))


def test_weight_decay_spares_norms_and_biases():
    optimizer = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    policy = make_policy(optimizer=optimizer)
    before = dict(build("qwen2").state_dict())
    policy.update(Term(MiniBatch((), Totals(0, 1, 8)), Surrogate()))
    for name, tensor in policy.weights():
        # With gradient zero only decay moves a weight: w <- w (1 - 0.1 * 0.5).
        expected = before[name] * 0.95 if tensor.ndim >= 2 else before[name]
        torch.testing.assert_close(tensor, expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        # Two warm-up steps, then from 1 at step 2 down to 0.2 at step 4, the last.
        ("linear", [0.5, 1.0, 1.0, 0.6, 0.2]),
        # cos(pi / 2) = 0 puts the middle half-way between 1 and 0.2.
        ("cosine", [0.5, 1.0, 1.0, 0.6, 0.2]),
    ],
)
def test_learning_rates_warm_up_and_then_follow_the_schedule(schedule, expected):
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=2, schedule=schedule, min_learning_rate=0.2 if schedule != "constant" else 0.0)
    assert [learning_rate(config, step, 5) for step in range(5)] == pytest.approx(expected)


def test_a_folder_loads_as_it_was_saved(tiny_model_folder):
    loaded = load_model(ModelConfig(path=str(tiny_model_folder), dtype="float32", device="cpu"))
    assert loaded.attention == "packed" and loaded.fused is not None
    assert loaded.tokenizer.eos_token == "<eos>"
    assert isinstance(TorchPolicy(loaded, optimizer=OptimizerConfig()).logprobs(make_samples()), list)


def test_a_missing_folder_names_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match="does not exist: give a save_pretrained folder"):
        load_model(ModelConfig(path=str(tmp_path / "nowhere"), device="cpu"))


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"without config\.json"):
        load_model(ModelConfig(path=str(tmp_path), device="cpu"))


def test_a_config_that_is_no_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConfigError, match="cannot be loaded as a causal language model"):
        load_model(ModelConfig(path=str(tmp_path), device="cpu"))
