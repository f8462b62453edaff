"""Loss, gradient and advantages equal those of the installed TRL, on a tiny model and completions written by hand.

TRL's own trainer does everything but sampling: it pads, masks, scores, computes advantages, log-probs, the correction for the engine's
log-probs and the loss. Ours starts from the same token ids and rewards. Both differentiate with respect to all weights of the model.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlvr.advantages import ZSCORE_EPS, GroupRewards, compute_advantages
from rlvr.algorithm_settings import AlgorithmSettings, CorrectionConfig, KlConfig
from rlvr.algorithms import CispoConfig, DapoConfig, DrGrpoConfig, GrpoConfig, GspoConfig, RlooConfig, SapoConfig
from rlvr.batch import LossInputs, Totals
from rlvr.losses import build_objective
from rlvr.rewards import kl_token_penalties

pytestmark = pytest.mark.parity

datasets = pytest.importorskip("datasets", reason="the test extra is not installed: TRL parity needs trl and datasets")
trl = pytest.importorskip("trl", reason="the test extra is not installed: TRL parity needs trl")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PAD, EOS, LIMIT, GROUP = 0, 1, 6, 4
TRL_EPS = 1e-4  # TRL divides by std + 1e-4.
PROMPTS = ["ab", "cdefg"]
LETTERS = dict(zip(string.ascii_lowercase, range(2, 28), strict=True))
COMPLETIONS = [[5, 9, 1], [7, 7, 3, 12, 8, 1], [4, 1], [11, 2, 6, 20, 9, 14], [3, 3, 1], [18, 5, 5, 2, 16, 22], [10, 1], [6, 2, 9, 13, 1]]
REWARDS = [1.0, 0.0, 0.25, 0.0, 0.0, 1.0, 1.0, 0.5]
TRUNCATED = [ids[-1] != EOS for ids in COMPLETIONS]


def tokenizer() -> object:
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": PAD, "<eos>": EOS, **LETTERS}, unk_token="<pad>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>")


def save_tiny_model(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(
                vocab_size=28, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                eos_token_id=EOS, pad_token_id=PAD, bos_token_id=None, initializer_range=0.5,
            )
        )  # fmt: skip
    model.save_pretrained(folder)


def move(model: torch.nn.Module) -> None:
    """Turn the policy that sampled into the current one: ratios from about 0.3 to 4."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def rows() -> list[dict[str, str]]:
    return [{"prompt": prompt} for prompt in PROMPTS for _ in range(GROUP)]


def prompt_ids() -> list[list[int]]:
    return [[LETTERS[letter] for letter in row["prompt"]] for row in rows()]


def hand_made_rewards(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
    return [REWARDS[COMPLETIONS.index(ids)] for ids in completion_ids]


def engine_logprobs(old: torch.Tensor) -> list[list[float]]:
    """The old policy's log-probs as an engine with other kernels would tell them: off by up to 1.5 nats."""
    noise = torch.rand(old.shape, generator=torch.Generator().manual_seed(2)) * 3 - 1.5
    return [(row + shift)[: len(ids)].tolist() for row, shift, ids in zip(old, noise, COMPLETIONS, strict=True)]


class HandMadeGrpo(trl.GRPOTrainer):
    """TRL's trainer, given these completions instead of sampling its own."""

    sampling_logprobs: list[list[float]] | None = None

    def _generate(self, prompts: list[str]) -> tuple:
        return prompt_ids(), COMPLETIONS, None, ["" for _ in COMPLETIONS], self.sampling_logprobs, {}, None, None


class HandMadeRloo(trl.RLOOTrainer):
    """TRL's trainer, given these completions instead of sampling its own."""

    def _generate(self, prompts: list[str]) -> tuple:
        return prompt_ids(), COMPLETIONS, ["" for _ in COMPLETIONS]


def build_trl(folder: Path, trainer: type, config: type, **settings: object) -> object:
    save_tiny_model(folder / "model")
    arguments = config(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=8, per_device_eval_batch_size=8,
        num_generations=GROUP, max_completion_length=LIMIT, seed=0, **settings,
    )  # fmt: skip
    built = trainer(
        model=str(folder / "model"), reward_funcs=hand_made_rewards, args=arguments, train_dataset=datasets.Dataset.from_list(rows()),
        processing_class=tokenizer(),
    )  # fmt: skip
    built.model.eval()
    return built


def our_logprobs(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probs and entropy of the completions [8, LIMIT], one unpadded sequence at a time."""
    logprobs, entropy = [], []
    for prompt, completion in zip(prompt_ids(), COMPLETIONS, strict=True):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        chosen = logits.gather(-1, torch.tensor(completion).unsqueeze(-1)).squeeze(-1)
        spread = -(logits.exp() * logits).sum(-1)
        logprobs.append(torch.nn.functional.pad(chosen, (0, LIMIT - len(completion))))
        entropy.append(torch.nn.functional.pad(spread, (0, LIMIT - len(completion))))
    return torch.stack(logprobs), torch.stack(entropy)


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(model.parameters()))])


def mask_of(keep_truncated: bool) -> torch.Tensor:
    mask = torch.zeros(8, LIMIT, dtype=torch.bool)
    for row, ids in enumerate(COMPLETIONS):
        mask[row, : len(ids)] = keep_truncated or not TRUNCATED[row]
    return mask


CASES: dict[str, tuple[AlgorithmSettings, dict[str, object]]] = {
    "grpo with k3": (GrpoConfig(), {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False}),
    "grpo with the KL weighted by the ratio": (
        GrpoConfig(kl=KlConfig(coefficient=0.04, weigh_by_ratio=True)),
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": True},
    ),
    "bnpo, whose mean is over the tokens of its batch": (DapoConfig(clip_high=0.2), {"loss_type": "bnpo"}),
    "dr_grpo": (DrGrpoConfig(), {"loss_type": "dr_grpo"}),
    "dapo": (DapoConfig(), {"loss_type": "dapo", "epsilon_high": 0.28}),
    "cispo": (CispoConfig(clip_high=1.0), {"loss_type": "cispo", "epsilon_high": 2.0}),
    "sapo": (SapoConfig(), {"loss_type": "sapo"}),
    "gspo": (
        GspoConfig(clip_low=0.03, clip_high=0.04),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04},
    ),
    "two-sided clip": (DapoConfig(clip_dual=1.5), {"loss_type": "dapo", "epsilon_high": 0.28, "delta": 1.5}),
    "truncated completions masked": (
        GrpoConfig(mask_truncated=True, kl=KlConfig()),
        {"loss_type": "grpo", "mask_truncated_completions": True},
    ),
    "truncated completions masked, token mean": (
        DapoConfig(mask_truncated=True),
        {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True},
    ),
    "entropy bonus": (DapoConfig(entropy_coefficient=0.1), {"loss_type": "dapo", "epsilon_high": 0.28, "entropy_coef": 0.1}),
}
CORRECTIONS: dict[str, tuple[CorrectionConfig, dict[str, object]]] = {
    "TIS": (
        CorrectionConfig(high=2.0),
        {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 2.0},
    ),
    "IcePop": (
        CorrectionConfig(mode="mask", low=0.5, high=2.0),
        {
            "vllm_importance_sampling_mode": "token_mask",
            "vllm_importance_sampling_clip_min": 0.5,
            "vllm_importance_sampling_clip_max": 2.0,
        },
    ),
    "sequence TIS": (
        CorrectionConfig(level="sequence", high=2.0),
        {"vllm_importance_sampling_mode": "sequence_truncate", "vllm_importance_sampling_clip_max": 2.0},
    ),
    "MIS": (
        CorrectionConfig(level="sequence", mode="mask", high=3.0),
        {"vllm_importance_sampling_mode": "sequence_mask", "vllm_importance_sampling_clip_max": 3.0},
    ),
}


def compare(trainer: HandMadeGrpo, config: AlgorithmSettings) -> None:
    """Assert that TRL's loss and gradient are ours, after the policy moved away from the one that sampled."""
    old = our_logprobs(trainer.model)[0].detach()
    corrects = config.correction is not None and config.correction.when == "always"
    if corrects:
        trainer.use_vllm = True
        trainer.sampling_logprobs = engine_logprobs(old)
    scored = trainer._generate_and_score_completions(rows())
    if not corrects:
        scored["old_per_token_logps"] = old
    # TRL's reference is its own copy of the saved weights; where there is no KL there is none.
    reference = None if trainer.ref_model is None else our_logprobs(trainer.ref_model)[0].detach()
    move(trainer.model)

    mask = mask_of(keep_truncated=not config.mask_truncated)
    logprobs, entropy = our_logprobs(trainer.model)
    behavior = scored.get("sampling_per_token_logps", old)
    inputs = LossInputs(logprobs, old, behavior, reference, scored["advantages"].unsqueeze(1).expand(8, LIMIT), mask, entropy)
    loss, stats = build_objective(config)(inputs, Totals(tokens=int(mask.sum()), sequences=8, max_new_tokens=LIMIT))
    theirs = trainer._compute_loss(trainer.model, scored)

    assert ((stats["ratio"][mask] - 1).abs() > 0.05).float().mean() > 0.3, "the policies are too near to tell losses apart"
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
    ours, expected = gradients(loss, trainer.model), gradients(theirs, trainer.model)
    assert expected.norm() > 1e-3
    assert float((ours - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_those_of_trl(case: str, tmp_path: Path) -> None:
    config, settings = CASES[case]
    compare(build_trl(tmp_path, HandMadeGrpo, trl.GRPOConfig, **{"beta": 0.0, **settings}), config)


@pytest.mark.parametrize("case", CORRECTIONS)
def test_the_correction_for_the_engine_equals_that_of_trl(case: str, tmp_path: Path) -> None:
    correction, settings = CORRECTIONS[case]
    trainer = build_trl(tmp_path, HandMadeGrpo, trl.GRPOConfig, beta=0.0, loss_type="dapo", epsilon_high=0.28, **settings)
    compare(trainer, DapoConfig(correction=correction))


def groups(**rest: object) -> Iterator[GroupRewards]:
    for start in range(0, 8, GROUP):
        lengths = torch.tensor([len(ids) for ids in COMPLETIONS[start : start + GROUP]])
        yield GroupRewards(torch.tensor(REWARDS[start : start + GROUP]), lengths, **rest)


def firsts(advantages: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([credit[0] for group in advantages for credit in group])


def test_grpo_advantages_equal_those_of_trl_up_to_its_larger_epsilon(tmp_path: Path) -> None:
    trainer = build_trl(tmp_path, HandMadeGrpo, trl.GRPOConfig, beta=0.0)
    theirs = trainer._generate_and_score_completions(rows())["advantages"]
    spread = torch.tensor(REWARDS).view(2, GROUP).std(-1).repeat_interleave(GROUP)
    ours = firsts(compute_advantages(list(groups()), GrpoConfig()))
    assert torch.allclose(ours * (spread + ZSCORE_EPS) / (spread + TRL_EPS), theirs, rtol=1e-5)


def test_dr_grpo_advantages_equal_those_of_trl(tmp_path: Path) -> None:
    trainer = build_trl(tmp_path, HandMadeGrpo, trl.GRPOConfig, beta=0.0, scale_rewards="none")
    theirs = trainer._generate_and_score_completions(rows())["advantages"]
    assert torch.allclose(firsts(compute_advantages(list(groups()), DrGrpoConfig())), theirs, rtol=1e-5)


def test_rloo_advantages_with_the_kl_in_the_reward_equal_those_of_trl(tmp_path: Path) -> None:
    trainer = build_trl(tmp_path, HandMadeRloo, trl.RLOOConfig, beta=0.3)
    reference = our_logprobs(trainer.ref_model)[0].detach()
    move(trainer.model)
    old = our_logprobs(trainer.model)[0].detach()
    theirs = trainer._generate_and_score_completions(rows())["advantages"]
    penalties = [kl_token_penalties(old[i], reference[i], coefficient=0.3, estimator="k1")[: len(ids)] for i, ids in enumerate(COMPLETIONS)]
    penalised = [
        GroupRewards(group.rewards, group.lengths, token_penalties=tuple(penalties[start : start + GROUP]))
        for start, group in zip((0, GROUP), groups(), strict=True)
    ]
    ours = firsts(compute_advantages(penalised, RlooConfig(kl=KlConfig(coefficient=0.3, estimator="k1", where="reward"))))
    assert not torch.allclose(ours, firsts(compute_advantages(list(groups()), RlooConfig())), atol=1e-2), "the penalty must matter"
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_first_rloo_update_has_the_gradient_of_trls_ratio_form(tmp_path: Path) -> None:
    trainer = build_trl(tmp_path, HandMadeRloo, trl.RLOOConfig, beta=0.0)
    scored = trainer._generate_and_score_completions(rows())
    logprobs, _ = our_logprobs(trainer.model)
    old = logprobs.detach()
    inputs = LossInputs(logprobs, old, old, None, scored["advantages"].unsqueeze(1).expand(8, LIMIT), mask_of(True))
    loss, _ = build_objective(RlooConfig())(inputs, Totals(tokens=int(inputs.mask.sum()), sequences=8, max_new_tokens=LIMIT))
    expected = gradients(trainer._compute_loss(trainer.model, scored), trainer.model)
    assert float((gradients(loss, trainer.model) - expected).norm() / expected.norm()) < 1e-4
