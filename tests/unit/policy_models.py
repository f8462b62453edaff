"""Small random models of several families, with the samples policies are tested on."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from rlvr.batch import LossInputs, MiniBatch, Totals
from rlvr.batching import pack, totals_of
from rlvr.config import ModelConfig, OptimizerConfig
from rlvr.policy.loading import LoadedModel, prepare_model
from rlvr.policy.torch_policy import TorchPolicy
from rlvr.types import TrainSample

VOCABULARY = 48
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def build(family: str) -> nn.Module:
    """A model whose weights, norms and biases included, are random enough that no part can be left out unnoticed."""
    import transformers as hf

    torch.manual_seed(0)
    if family == "qwen2":
        model = hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, tie_word_embeddings=True))
    elif family == "qwen2_untied":
        model = hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES, tie_word_embeddings=False))
    elif family == "qwen3":
        model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**SIZES, head_dim=8))
    elif family == "llama":
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES))
    elif family == "mistral_window":
        model = hf.MistralForCausalLM(hf.MistralConfig(**SIZES, sliding_window=5))
    elif family == "gemma2":
        softcaps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
        model = hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZES, head_dim=8, sliding_window=5, query_pre_attn_scalar=8, **softcaps))
    elif family == "gpt2":
        model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128))
    elif family == "mamba":
        model = hf.MambaForCausalLM(hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4))
    else:
        raise ValueError(family)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model.eval()


def build_eager(family: str) -> nn.Module:
    """The same with transformers' plainest attention, which knows soft caps."""
    model = build(family)
    model.set_attn_implementation("eager")
    return model


def load(family: str = "qwen2", *, fused: bool = True, **options) -> LoadedModel:
    config = ModelConfig(**{"path": "in memory", "dtype": "float32", "device": "cpu", **options})
    loaded = prepare_model(build(family), None, config)
    return loaded if fused else dataclasses.replace(loaded, fused=None)


def make_policy(family: str = "qwen2", *, fused: bool = True, optimizer: OptimizerConfig | None = None, **options) -> TorchPolicy:
    policy_options = {name: options.pop(name) for name in ("temperature", "num_steps", "reference") if name in options}
    return TorchPolicy(load(family, fused=fused, **options), optimizer=optimizer or OptimizerConfig(learning_rate=1e-3), **policy_options)


def make_samples(num_groups: int = 3, group_size: int = 3, seed: int = 0) -> list[TrainSample]:
    """Ragged samples with shared prompts, an unscored gap inside some, and one completion of a single token."""
    draw = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=draw))
        return torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()

    samples = []
    for group in range(num_groups):
        prompt = ids(2, 9)
        for member in range(group_size):
            completion = ids(4, 20) if (group, member) != (0, 0) else ids(1, 2)
            mask = [False] * len(prompt) + [True] * len(completion)
            if member == 1:
                mask[len(prompt) + 2] = False
            advantages = torch.randn(len(mask), generator=draw)
            samples.append(
                TrainSample(
                    token_ids=(*prompt, *completion),
                    loss_mask=tuple(mask),
                    behavior_logprobs=tuple(-2.0 if m else 0.0 for m in mask),
                    advantages=tuple(float(a) if m else 0.0 for a, m in zip(advantages, mask, strict=True)),
                    policy_version=0,
                    group_index=group,
                )
            )
    return samples


def minibatch(samples: list[TrainSample], *, tokens_per_microbatch: int = 10_000, share_prompts: bool = True) -> MiniBatch:
    totals = totals_of(samples, max_new_tokens=20)
    packed = pack(samples, totals=totals, tokens_per_microbatch=tokens_per_microbatch, share_prompts=share_prompts)
    return packed


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A clipped-surrogate-like objective with an entropy term, so that every gradient path is used."""

    entropy_weight: float = 0.1
    needs_reference: bool = False

    @property
    def needs_entropy(self) -> bool:
        return self.entropy_weight != 0

    def __call__(self, inputs: LossInputs, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = (inputs.logprobs - inputs.old_logprobs).exp()
        token_loss = -inputs.advantages * ratio
        if self.needs_entropy:
            token_loss = token_loss - self.entropy_weight * inputs.entropy
        loss = torch.where(inputs.mask, token_loss, 0.0).sum() / totals.tokens
        return loss, {"ratio": ratio.detach(), "ratio_max": ratio.detach(), "entropy": inputs.entropy.detach()}


def gradients(policy: TorchPolicy, packed: MiniBatch, objective=Surrogate()) -> dict[str, Tensor]:  # noqa: B008
    """What one update would step on, before clipping; the policy itself is left as it was."""
    from rlvr.policy.protocol import Term

    policy.accumulate_gradients(Term(packed, objective))
    found = {name: parameter.grad.clone() for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    policy.discard_gradients()
    return found
