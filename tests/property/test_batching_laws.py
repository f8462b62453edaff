"""Laws of packing over random samples: nothing lost, nothing padded, nothing over the budget."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.batch import MicroBatch
from rlvr.batching import num_scored, pack, split_evenly, totals_of
from rlvr.exchange import even_out
from rlvr.types import TrainSample

tokens = st.integers(0, 9)


@st.composite
def sample_lists(draw: st.DrawFn) -> list[TrainSample]:
    """Groups of samples with a common prompt; masks may have holes; some samples have nothing scored."""
    samples = []
    for group in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(tokens, min_size=1, max_size=5))
        for _ in range(draw(st.integers(1, 4))):
            completion = draw(st.lists(st.tuples(tokens, st.booleans()), min_size=1, max_size=8))
            ids = (*prompt, *(t for t, _ in completion))
            mask = (*(False for _ in prompt), *(m for _, m in completion))
            values = tuple(float(i) if m else 0.0 for i, m in enumerate(mask))
            samples.append(TrainSample(ids, mask, values, values, policy_version=0, group_index=group))
    return samples


def microbatches(samples: list[TrainSample], budget: int, share: bool) -> tuple[MicroBatch, ...]:
    minibatch = pack(samples, totals=totals_of(samples, max_new_tokens=8), tokens_per_microbatch=budget, share_prompts=share)
    return minibatch.microbatches


def read_back(batch: MicroBatch) -> list[tuple[tuple[int, ...], tuple[bool, ...], tuple[float, ...]]]:
    """Reconstruct each row's tokens up to its last scored one, from the packed tokens it attends to and its targets."""
    context_ending_at = {}
    for row in range(len(batch.layout.query_start)):
        keys = batch.layout.key_index[row][batch.layout.key_mask[row]].tolist()
        queries = batch.layout.query_index[row][batch.layout.query_mask[row]].tolist()
        for step, place in enumerate(queries):
            context_ending_at[place] = keys[: int(batch.layout.query_start[row]) + step + 1]
    rows = []
    for row in range(batch.mask.shape[0]):
        scored = (batch.target_row == row).nonzero().flatten().tolist()
        context = context_ending_at[int(batch.source_index[scored[-1]])]
        assert batch.position_ids[context].tolist() == list(range(len(context)))
        ids = (*batch.token_ids[context].tolist(), int(batch.target_ids[scored[-1]]))
        for n in scored:
            assert ids[int(batch.target_col[n])] == int(batch.target_ids[n])
            assert context_ending_at[int(batch.source_index[n])] == context[: int(batch.target_col[n])]
        rows.append((ids, tuple(batch.mask[row].tolist()[: len(ids)]), tuple(batch.advantages[row].tolist()[: len(ids)])))
    return rows


def needed(sample: TrainSample) -> int:
    return max(t for t, scored in enumerate(sample.loss_mask) if scored)


@settings(max_examples=60, deadline=None)
@given(sample_lists(), st.integers(1, 40), st.booleans())
def test_every_sample_with_a_scored_token_can_be_read_back_exactly_once(samples, budget, share):
    expected = sorted(
        (s.token_ids[: needed(s) + 1], s.loss_mask[: needed(s) + 1], s.advantages[: needed(s) + 1]) for s in samples if num_scored(s)
    )
    assert sorted(row for batch in microbatches(samples, budget, share) for row in read_back(batch)) == expected


@settings(max_examples=60, deadline=None)
@given(sample_lists(), st.integers(1, 40))
def test_the_token_axis_holds_exactly_the_tokens_that_predict_something_each_once(samples, budget):
    for batch in microbatches(samples, budget, share=True):
        queries = batch.layout.query_index[batch.layout.query_mask]
        assert sorted(queries.tolist()) == list(range(len(batch.token_ids)))
    without_sharing = microbatches(samples, budget, share=False)
    assert sum(len(b.token_ids) for b in without_sharing) == sum(needed(s) for s in samples if num_scored(s))


@settings(max_examples=60, deadline=None)
@given(sample_lists())
def test_a_prompt_is_stored_once_for_its_group_when_all_fit_one_microbatch(samples):
    prompts, own = set(), 0
    for s in samples:
        if num_scored(s):
            first = s.loss_mask.index(True)
            prompts.add((s.group_index, s.token_ids[:first]))
            own += needed(s) - first
    batches = microbatches(samples, 10_000, share=True)
    assert sum(len(b.token_ids) for b in batches) == own + sum(len(prompt) for _, prompt in prompts)


@settings(max_examples=60, deadline=None)
@given(sample_lists(), st.integers(1, 40), st.booleans())
def test_only_a_single_sequence_may_exceed_the_budget(samples, budget, share):
    for batch in microbatches(samples, budget, share):
        assert len(batch.token_ids) <= budget or batch.mask.shape[0] == 1


@settings(max_examples=30, deadline=None)
@given(sample_lists(), st.integers(1, 40), st.integers(1, 5))
def test_parts_hold_every_scored_token(samples, budget, num_parts):
    totals = totals_of(samples, max_new_tokens=8)
    parts = split_evenly(samples, num_parts)
    assert len(parts) == num_parts
    assert [s for part in parts for s in part] == samples
    packed = [pack(part, totals=totals, tokens_per_microbatch=budget) for part in parts]
    assert sum(len(m.target_ids) for part in packed for m in part.microbatches) == totals.tokens


costs = st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 3)), max_size=40)


@given(costs)
def test_evening_out_never_widens_the_gap_between_teams_and_leaves_what_is_even_alone(units):
    def gap(teams):
        loads = [sum(c for (c, _), team in zip(units, teams, strict=True) if team == t) for t in range(4)]
        return max(loads) - min(loads)

    homes = [home for _, home in units]
    teams = even_out([cost for cost, _ in units], homes, 4)
    assert gap(teams) <= gap(homes) + 1e-9
    if gap(homes) == 0:
        assert teams == homes


def test_two_ranks_of_very_different_lengths_come_within_a_few_percent():
    costs = [100.0] * 16 + [900.0] * 16
    teams = even_out(costs, [0] * 16 + [1] * 16, 2)
    loads = [sum(c for c, team in zip(costs, teams, strict=True) if team == t) for t in range(2)]
    assert abs(loads[0] - loads[1]) / sum(loads) < 0.03
    assert sum(team == 0 for team in teams[16:]) == 7  # Nothing moves that need not.
