"""The buffer bounds staleness, keeps the order and loses nothing."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.errors import NoLearningSignal, TooManyVerifierFailures
from rlvr.rollouts.buffer import BufferState, RolloutBuffer
from rlvr.rollouts.producer import Producer
from rlvr.run_state import dealt_anew
from rlvr.types import Completion, Prompt, Rollout, RolloutGroup
from verifiers.errors import VerifierError
from verifiers.types import Problem, Verdict


def group_of(index: int, scores: list[float], version: int) -> RolloutGroup:
    prompt = Prompt(Problem(str(index), ({"role": "user", "content": "?"},), {"answer": "1"}), (1,))
    rollouts = [
        Rollout(prompt, Completion("a", (2,), (-1.0,), "stop", version, version), Verdict(score, "correct" if score else "incorrect"))
        for score in scores
    ]
    return RolloutGroup(index, tuple(rollouts))


class ScriptedCollector:
    """Collects with delays, failures and reward patterns drawn from a seed, at the version the policy has when it begins."""

    def __init__(self, seed: int, failing: float, uninformative: float, version) -> None:
        self.random = random.Random(seed)
        self.failing, self.uninformative, self.version = failing, uninformative, version
        self.collected: list[int] = []

    async def collect(self, index: int) -> RolloutGroup:
        version = self.version()
        self.collected.append(index)
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        if self.random.random() < self.failing:
            raise VerifierError("the judge is away")
        scores = [1.0, 1.0] if self.random.random() < self.uninformative else [1.0, 0.0]
        return group_of(index, scores, version)


def producer_of(buffer: RolloutBuffer, collector, *, informative_only: bool = True, max_drops: int = 10_000, max_failure_rate: float = 1.0):
    return Producer(
        buffer=buffer,
        collector=collector,
        informative_only=informative_only,
        is_informative=lambda group: len({rollout.verdict.score for rollout in group.rollouts}) > 1,
        max_drops_per_step=max_drops,
        max_failure_rate=max_failure_rate,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    groups_per_step=st.integers(1, 5),
    max_staleness=st.integers(0, 3),
    failing=st.sampled_from([0.0, 0.2]),
    uninformative=st.sampled_from([0.0, 0.5]),
    oversampling=st.sampled_from([0.0, 0.0, 0.5, 2.0]),
)
def test_staleness_never_passes_its_bound_and_groups_come_in_order(
    seed, groups_per_step, max_staleness, failing, uninformative, oversampling
):
    async def run() -> None:
        step = 0
        buffer = RolloutBuffer(groups_per_step=groups_per_step, max_staleness=max_staleness, oversampling=oversampling)
        collector = ScriptedCollector(seed, failing, uninformative, version=lambda: step)
        seen: list[int] = []
        async with producer_of(buffer, collector).running() as producer:
            for step in range(8):  # noqa: B007
                taken = await producer.take(groups_per_step)
                for group in taken:
                    assert 0 <= step - group.rollouts[0].completion.first_version <= max_staleness
                seen += [group.index for group in taken]
                for _ in range(collector.random.randrange(10)):
                    await asyncio.sleep(0)
                step += 1
                await buffer.release(groups_per_step)
        # Nothing is trained on twice; without over-sampling the order is that of admission.
        assert len(seen) == len(set(seen))
        assert oversampling or seen == sorted(seen)
        assert sorted(set(collector.collected)) == list(range(len(set(collector.collected))))

    asyncio.run(run())


def test_a_saved_buffer_goes_on_with_the_same_groups():
    async def run() -> None:
        buffer = RolloutBuffer(groups_per_step=2, max_staleness=1)
        assert await buffer.admit() == [0, 1, 2, 3]
        await buffer.put(group_of(2, [1.0, 0.0], 0))
        await buffer.drop(1)
        again = RolloutBuffer(groups_per_step=2, max_staleness=1, state=buffer.state())
        # 0 and 3 were in flight and 2 waits: of four slots one is taken; 0 and 3 are sampled anew, then comes 4.
        assert await again.admit() == [0, 3, 4]
        await again.put(group_of(0, [1.0, 0.0], 0))
        assert [group.index for group in await again.take(2)] == [0, 2]

    asyncio.run(run())


def test_dynamic_sampling_that_finds_nothing_says_what_it_saw_instead_of_hanging():
    async def run() -> None:
        buffer = RolloutBuffer(groups_per_step=4, max_staleness=0)
        collector = ScriptedCollector(0, failing=0.0, uninformative=1.0, version=lambda: 0)
        async with producer_of(buffer, collector, max_drops=20).running() as producer:
            await asyncio.wait_for(producer.take(4), timeout=10)

    with pytest.raises(NoLearningSignal, match=r"dropped 21 groups .*mean score: groups — 1: 21"):
        asyncio.run(run())


def test_a_judge_that_fails_too_often_ends_the_run_with_its_own_error():
    async def run() -> None:
        buffer = RolloutBuffer(groups_per_step=4, max_staleness=0)
        collector = ScriptedCollector(0, failing=0.3, uninformative=0.0, version=lambda: 0)
        async with producer_of(buffer, collector, max_failure_rate=0.05).running() as producer:
            for _ in range(100):
                await asyncio.wait_for(producer.take(4), timeout=10)
                await buffer.release(4)

    with pytest.raises(TooManyVerifierFailures, match="max_failure_rate=5%.*the judge is away"):
        asyncio.run(run())


def test_an_engine_error_reaches_the_trainer():
    class BrokenEngine:
        async def collect(self, index: int) -> RolloutGroup:
            raise RuntimeError("out of memory")

    async def run() -> None:
        buffer = RolloutBuffer(groups_per_step=2, max_staleness=0)
        async with producer_of(buffer, BrokenEngine()).running() as producer:
            await asyncio.wait_for(producer.take(2), timeout=10)

    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(run())


def test_oversampling_begins_with_the_groups_that_are_there_and_cuts_the_rest():
    """Four groups a step and two more: the two slowest are cut, their sampling is stopped, and their prompts come again first."""
    stopped: list[int] = []

    class SlowForSome:
        async def collect(self, index: int) -> RolloutGroup:
            try:
                await asyncio.sleep(30 if index in (0, 3) and not stopped else 0.001)
            except asyncio.CancelledError:
                stopped.append(index)
                raise
            return group_of(index, [1.0, 0.0], 0)

    async def run() -> None:
        buffer = RolloutBuffer(groups_per_step=4, max_staleness=0, oversampling=0.5)
        async with producer_of(buffer, SlowForSome()).running() as producer:
            first = await asyncio.wait_for(producer.take(4), timeout=5)
            await buffer.release(4)
            second = await asyncio.wait_for(producer.take(4), timeout=5)
            assert [group.index for group in first] == [1, 2, 4, 5]
            assert stopped == [0, 3]
            assert [group.index for group in second] == [0, 3, 6, 7]
            assert producer.take_counts().cut == 4  # in the second step the two spare ones were finished and could not be used

    asyncio.run(run())


def test_with_staleness_a_slow_group_goes_on_into_the_next_step():
    class SlowForOne:
        def __init__(self) -> None:
            self.begun: list[int] = []

        async def collect(self, index: int) -> RolloutGroup:
            self.begun.append(index)
            await asyncio.sleep(0.2 if index == 0 else 0.001)
            return group_of(index, [1.0, 0.0], 0)

    async def run() -> None:
        collector = SlowForOne()
        buffer = RolloutBuffer(groups_per_step=2, max_staleness=1, oversampling=0.5)
        async with producer_of(buffer, collector).running() as producer:
            first = await asyncio.wait_for(producer.take(2), timeout=5)
            assert 0 not in [group.index for group in first]
            await asyncio.sleep(0.3)
            await buffer.release(2)
            second = await asyncio.wait_for(producer.take(2), timeout=5)
            assert 0 in [group.index for group in second]
            assert collector.begun.count(0) == 1

    asyncio.run(run())


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(1, 5))
def test_other_ranks_sample_what_the_former_had_left_and_nothing_twice(admitted, size):
    """Rank r of the former had admitted so many of its places r, r + W, …; the last of each was still being sampled."""
    stride = len(admitted)
    states = [
        BufferState(rank + count * stride, (rank + (count - 1) * stride,) if count else (), ()) for rank, count in enumerate(admitted)
    ]
    done = {rank + place * stride for rank, count in enumerate(admitted) for place in range(count - 1)}
    horizon = 200
    sampled: list[int] = []
    for rank in range(size):
        state = dealt_anew(states, rank, size)
        sampled += [*state.in_flight, *range(state.next_index, horizon, size)]
        assert state.next_index % size == rank % size
    assert sorted(sampled) == sorted(set(range(horizon)) - done)
