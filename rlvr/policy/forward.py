"""One forward pass of any causal language model over a packed micro-batch, up to the hidden states its output projection sees."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rlvr.batch import MicroBatch
from rlvr.logprobs import OutputHead
from rlvr.policy.packed_attention import PackedAttention


def packed_hidden_states(decoder: nn.Module, microbatch: MicroBatch, plan: PackedAttention | None = None) -> Float[Tensor, "T H"]:
    """Run the packed tokens as one row; the model's attention implementation must be rlvr's."""
    plan = plan or PackedAttention(microbatch.layout, num_tokens=len(microbatch.token_ids))
    output = decoder(
        input_ids=microbatch.token_ids.unsqueeze(0),
        position_ids=microbatch.position_ids.unsqueeze(0),
        attention_plan=plan,
        use_cache=False,
    )
    return output.last_hidden_state.squeeze(0)


def padded_hidden_states(decoder: nn.Module, microbatch: MicroBatch) -> Float[Tensor, "T H"]:
    """Run each sequence as its own right-padded row through the model's own attention, and pack the hidden states.

    A shared prompt runs again with each of its sequences, which is why this path is only for models that cannot pack.
    """
    layout = microbatch.layout
    # A row without positions of its own: position ids count from 0 in each row, as in the unpacked sequence.
    output = decoder(input_ids=microbatch.token_ids[layout.key_index], attention_mask=layout.key_mask.long(), use_cache=False)
    steps = layout.query_start[:, None] + torch.arange(layout.query_index.shape[1], device=layout.query_index.device)
    rows, places = layout.query_mask.nonzero(as_tuple=True)
    # Where each packed token stands among the rows; every packed token is a query of exactly one row.
    stands_at = torch.empty(len(microbatch.token_ids), dtype=torch.long, device=steps.device)
    stands_at[layout.query_index[rows, places]] = rows * layout.key_index.shape[1] + steps[rows, places]
    return output.last_hidden_state.flatten(0, 1)[stands_at]


def output_head(model: nn.Module) -> OutputHead:
    """Read how a model turns hidden states into logits; `policy.attention_check` verifies the reading."""
    projection = model.get_output_embeddings()
    config = model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logit_scale", None):
        scale = float(config.logit_scale)  # Cohere multiplies
    elif getattr(config, "logits_scaling", None):
        scale = 1.0 / float(config.logits_scaling)  # Granite divides
    return OutputHead(projection.weight, getattr(projection, "bias", None), scale, getattr(config, "final_logit_softcapping", None))
