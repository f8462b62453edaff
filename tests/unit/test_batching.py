"""Packing by hand-worked examples: what is stored once, what predicts what, what the totals count."""

from __future__ import annotations

import pytest
import torch

from rlvr.batch import Totals
from rlvr.batching import build_microbatch, pack, totals_of
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
    (minibatch,) = pack(samples, totals=totals_of(samples, max_new_tokens=8), tokens_per_microbatch=4)
    assert [len(m.token_ids) for m in minibatch.microbatches] == [8, 2]


def test_samples_without_a_scored_token_take_no_compute_and_still_count_as_sequences():
    samples = [sample([1, 2, 3], "000"), sample([1, 2, 3], "001")]
    (minibatch,) = pack(samples, totals=totals_of(samples, max_new_tokens=8), tokens_per_microbatch=64)
    assert [m.mask.shape[0] for m in minibatch.microbatches] == [1]
    assert minibatch.totals == Totals(tokens=1, sequences=2, max_new_tokens=8)


def test_minibatch_totals_sum_to_the_step_with_left_out_sequences_spread_evenly():
    samples = [sample([1, 2, 3], "011", group=g) for g in range(3)]
    # The step had 5 sequences and 10 tokens; 2 sequences and 4 tokens were left out. Mini-batches hold 1 and 2 of the rest.
    parts = pack(samples, totals=Totals(10, 5, 8), num_minibatches=2, tokens_per_microbatch=64)
    assert [p.totals for p in parts] == [Totals(4, 2, 8), Totals(6, 3, 8)]


def test_totals_smaller_than_the_samples_are_refused():
    with pytest.raises(ValueError, match="fewer than the 2"):
        pack([sample([1, 2, 3], "011")], totals=Totals(1, 1, 8), tokens_per_microbatch=64)


def test_no_samples_make_an_empty_minibatch():
    (minibatch,) = pack([], totals=Totals(0, 4, 8), tokens_per_microbatch=64)
    assert minibatch.microbatches == ()
    assert minibatch.totals.sequences == 4


def test_values_stand_where_their_tokens_stand():
    batch = build_microbatch([sample([5, 6, 7], "011"), sample([4, 3], "01", group=1)])
    assert torch.equal(batch.advantages, torch.tensor([[0.0, 6.0, 7.0], [0.0, 3.0, 0.0]]))
    assert torch.equal(batch.behavior_logprobs, torch.tensor([[0.0, -0.5, -0.5], [0.0, -0.5, 0.0]]))
