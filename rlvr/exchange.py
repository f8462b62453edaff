"""Evens out the work of a step among ranks: samples move to where less is to be done.

Each rank samples its own prompts, and completions differ in length, so one rank may have twice another's tokens; in lock step all would
wait for it. What moves is whole prompt units (samples that share a prompt), as few as bring the costs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.batching import prompt_units
from rlvr.distributed import Ranks
from rlvr.types import TrainSample

CLOSE_ENOUGH = 0.02
"""Difference between the costliest and the cheapest team, as a share of the mean, below which nothing more is moved."""


@dataclass(frozen=True, slots=True)
class WorkSplit:
    """How samples become work. `hidden` is the model's width, by which attention weighs against all else."""

    tokens_per_microbatch: int
    share_prompts: bool
    hidden: int

    def cost(self, tokens: int, keys: int) -> float:
        """Return the cost in tokens: a layer's matrix products take 24 h^2 operations a token, its attention 4 h a key."""
        return tokens + keys / (6 * self.hidden)


def share_out(parts: Sequence[Sequence[TrainSample]], ranks: Ranks, split: WorkSplit, *, balance: bool) -> list[list[TrainSample]]:
    """Return this rank's samples of each part, a mini-batch each: its own, what comes from others, less what goes to them.

    All members of a team get the same. Every sample with a scored token is with one team afterwards.
    """
    if ranks.size == 1 or (ranks.team_size == 1 and not balance):
        return [list(part) for part in parts]
    units = [prompt_units(part, max_tokens=split.tokens_per_microbatch, share_prompts=split.share_prompts) for part in parts]
    costs = ranks.everyones([[split.cost(unit.tokens, unit.keys) for unit in of_part] for of_part in units])
    outgoing: list[list[tuple[int, list[TrainSample]]]] = []
    kept: list[list[list[TrainSample]]] = []
    for number, part in enumerate(parts):
        homes = [rank // ranks.team_size for rank, of_rank in enumerate(costs) for _ in of_rank[number]]
        flat = [cost for of_rank in costs for cost in of_rank[number]]
        teams = even_out(flat, homes, ranks.num_teams) if balance else homes
        begin = sum(len(of_rank[number]) for of_rank in costs[: ranks.rank])
        mine = [(teams[begin + i], [part[row] for row in unit.rows]) for i, unit in enumerate(units[number])]
        kept.append([samples for team, samples in mine if team == ranks.team])
        outgoing.append([(team, samples) for team, samples in mine if team != ranks.team or ranks.team_size > 1])
    everyones = ranks.everyones(outgoing)
    shared: list[list[TrainSample]] = []
    for number in range(len(parts)):
        found = []
        for rank, of_rank in enumerate(everyones):
            arriving = [samples for team, samples in of_rank[number] if team == ranks.team]
            found += kept[number] if rank == ranks.rank else arriving
        shared.append([sample for samples in found for sample in samples])
    return shared


def even_out(costs: Sequence[float], homes: Sequence[int], num_teams: int) -> list[int]:
    """Return the team of each unit of work: its home, unless moving it brings the costliest team nearer to the cheapest.

    Example: costs 3, 1, 2, 2 of which the first three are at home with team 0 and the last with team 1: 6 against 2. The third moves: 4
    against 4.
    """
    teams = list(homes)
    loads = [0.0] * num_teams
    for cost, team in zip(costs, teams, strict=True):
        loads[team] += cost
    mean = sum(loads) / num_teams
    for _ in costs:
        most, least = max(range(num_teams), key=lambda t: (loads[t], -t)), min(range(num_teams), key=lambda t: (loads[t], t))
        gap = loads[most] - loads[least]
        if gap <= CLOSE_ENOUGH * mean:
            break
        # Moving cost c leaves a gap of |gap - 2 c| between the two.
        movable = [unit for unit, team in enumerate(teams) if team == most and 0 < costs[unit] < gap]
        if not movable:
            break
        unit = min(movable, key=lambda unit: (abs(gap - 2 * costs[unit]), unit))
        teams[unit] = least
        loads[most] -= costs[unit]
        loads[least] += costs[unit]
    return teams
