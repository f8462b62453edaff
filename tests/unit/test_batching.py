"""Packing by hand-worked examples: what is stored once, what predicts what, what the totals count."""

from __future__ import annotations

import torch

from rlvr.batch import Totals
from rlvr.batching import build_microbatch, pack, split_evenly, totals_of
from rlvr.policy.packed_attention import PackedAttention
from rlvr.policy.scoring import TOKEN_STEP
from rlvr.types import TrainSample


def sample(tokens: list[int], mask: str, *, group: int = 0) -> TrainSample:
    """`mask` marks scored tokens with 1; advantages are the token ids, so that a value's place shows."""
    return TrainSample(
        token_ids=tuple(tokens),
        loss_mask=tuple(c == "1" for c in mask),
        behavior_logprobs=tuple(-0.5 if c == "1" else 0.0 for c in mask),
        advantages=tuple(float(t) if c == "1" else 0.0 for t, c in zip(tokens, mask, strict=True)),
        policy_version=0,
        group_index=group,
    )


def test_a_token_is_predicted_from_the_state_before_it():
    batch = build_microbatch([sample([5, 6, 7, 8], "0011")])
    # Tokens 7 and 8 are scored, from the states of 6 (packed place 1) and 7 (place 2); 8 itself need not run.
    assert batch.token_ids.tolist() == [5, 6, 7]
    assert batch.source_index.tolist() == [1, 2]
    assert batch.target_ids.tolist() == [7, 8]
    assert batch.target_col.tolist() == [2, 3]


def test_a_prompt_shared_by_a_group_is_stored_once():
    batch = build_microbatch([sample([5, 6, 7, 8], "0011"), sample([5, 6, 9, 3], "0011")])
    assert batch.token_ids.tolist() == [5, 6, 7, 9]
    assert batch.position_ids.tolist() == [0, 1, 2, 2]
    # Both first completion tokens are predicted from the prompt's last token.
    assert batch.source_index.tolist() == [1, 2, 1, 3]
    assert batch.layout.key_index[1:].tolist() == [[0, 1, 2], [0, 1, 3]]
    assert batch.layout.query_start.tolist() == [0, 2, 2]


def test_equal_prompts_of_different_groups_are_not_shared():
    batch = build_microbatch([sample([5, 6, 7, 8], "0011", group=0), sample([5, 6, 9, 3], "0011", group=1)])
    assert len(batch.token_ids) == 6


def test_a_completion_of_one_token_adds_no_token_behind_its_shared_prompt():
    batch = build_microbatch([sample([5, 6, 7], "001"), sample([5, 6, 8], "001")])
    assert batch.token_ids.tolist() == [5, 6]
    assert batch.source_index.tolist() == [1, 1]


def test_tool_output_between_turns_is_read_but_not_scored():
    batch = build_microbatch([sample([5, 6, 7, 8, 9], "01001")])
    assert batch.token_ids.tolist() == [5, 6, 7, 8]
    assert batch.target_ids.tolist() == [6, 9]


def test_the_first_token_of_a_sequence_is_never_scored():
    batch = build_microbatch([sample([5, 6], "11")])
    assert batch.target_ids.tolist() == [6]
    assert batch.mask.tolist() == [[False, True]]


def test_a_sample_longer_than_the_budget_is_a_microbatch_of_its_own():
    samples = [sample(list(range(9)), "0" + "1" * 8, group=0), sample([1, 2], "01", group=1), sample([3, 4], "01", group=2)]
    minibatch = pack(samples, totals=totals_of(samples, max_new_tokens=8), tokens_per_microbatch=4)
    assert [len(m.token_ids) for m in minibatch.microbatches] == [8, 2]


def test_samples_without_a_scored_token_take_no_compute_and_still_count_as_sequences():
    samples = [sample([1, 2, 3], "000"), sample([1, 2, 3], "001")]
    minibatch = pack(samples, totals=totals_of(samples, max_new_tokens=8), tokens_per_microbatch=64)
    assert [m.mask.shape[0] for m in minibatch.microbatches] == [1]
    assert minibatch.totals == Totals(tokens=1, sequences=2, max_new_tokens=8)


def test_samples_are_split_in_their_order_into_parts_of_equal_counts():
    samples = [sample([1, 2, 3], "011", group=g) for g in range(5)]
    assert [[s.group_index for s in part] for part in split_evenly(samples, 2)] == [[0, 1], [2, 3, 4]]


def test_a_minibatch_has_at_least_as_many_microbatches_as_asked_where_there_are_samples_enough():
    samples = [sample([1, 2, 3], "011", group=g) for g in range(4)]
    counts = [
        len(pack(samples, totals=Totals(8, 4, 8), tokens_per_microbatch=64, min_microbatches=asked).microbatches) for asked in (1, 2, 9)
    ]
    assert counts == [1, 2, 4]


REALISTIC = [min(4096, int(torch.distributions.LogNormal(6.0, 0.9).icdf(torch.tensor((i + 0.5) / 512)))) for i in range(512)]
"""Lengths of chains of thought: log-normal, a median of 400 tokens, a tail of ten times that, cut at 4096."""


def test_no_more_than_a_twentieth_of_what_is_computed_is_padding():
    # 64 groups of 8 behind prompts of 80 tokens, the long completions scattered over the groups.
    samples = []
    for i in range(512):
        length = REALISTIC[i * 197 % 512]
        samples.append(sample([1] * 80 + [2] * length, "0" * 80 + "1" * length, group=i // 8))
    minibatch = pack(samples, totals=totals_of(samples, max_new_tokens=4096), tokens_per_microbatch=8192)
    # Useful: each prompt once, and each completion but its last token, which predicts nothing.
    useful = 64 * 80 + sum(length - 1 for length in REALISTIC)
    computed = sum(
        PackedAttention(m.layout, num_tokens=len(m.token_ids), length_step=TOKEN_STEP).padded_length for m in minibatch.microbatches
    )
    padded = len(samples) * (80 + max(REALISTIC))
    print(f"computed / useful tokens: {computed / useful:.3f} packed, {padded / useful:.2f} padded")
    assert computed / useful < 1.05


def test_no_samples_make_an_empty_minibatch():
    minibatch = pack([], totals=Totals(0, 4, 8), tokens_per_microbatch=64)
    assert minibatch.microbatches == ()
    assert minibatch.totals.sequences == 4


def test_values_stand_where_their_tokens_stand():
    batch = build_microbatch([sample([5, 6, 7], "011"), sample([4, 3], "01", group=1)])
    assert torch.equal(batch.advantages, torch.tensor([[0.0, 6.0, 7.0], [0.0, 3.0, 0.0]]))
    assert torch.equal(batch.behavior_logprobs, torch.tensor([[0.0, -0.5, -0.5], [0.0, -0.5, 0.0]]))
