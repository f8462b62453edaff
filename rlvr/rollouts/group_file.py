"""Whole groups on disk: prompts, tokens, log-probs, versions, verdicts, values; so sampling and learning can be looked at one by one.

A dump is a folder `step_000001.jsonl`, … with one JSON object a group, in the order in which groups were trained on, and `dump.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rlvr.errors import DataError
from rlvr.types import Completion, GroupValues, Prompt, Rollout, RolloutGroup, StepValues
from verifiers.types import Problem, StepScore, Verdict

DUMP_FILE = "dump.json"


@dataclass(frozen=True, slots=True)
class DumpFacts:
    """What a replay has to know of the run. `off_policy`: whether its engine could differ from the policy before the step."""

    off_policy: bool
    groups_per_step: int


class GroupDump:
    """A folder of dumped groups, for writing."""

    def __init__(self, folder: Path, facts: DumpFacts) -> None:
        self._folder = folder
        self._facts = facts

    def write(self, step: int, groups: Sequence[RolloutGroup]) -> None:
        """Write a step's groups whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / DUMP_FILE).write_text(json.dumps(asdict(self._facts)))
        path = self._folder / f"step_{step:06d}.jsonl"
        aside = path.with_suffix(".new")
        aside.write_text("".join(json.dumps(_whole_record(group)) + "\n" for group in groups))
        aside.replace(path)


def read_facts(folder: Path) -> DumpFacts:
    """Raises: DataError: the folder is no dump."""
    try:
        return DumpFacts(**json.loads((folder / DUMP_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder} is no folder of dumped groups ({error}): rollouts.dump=true or `rlvr rollout` writes one, as RUN/groups"
        ) from error


def read_groups(folder: Path) -> Iterator[RolloutGroup]:
    """Yield all groups of a dump, in the order in which they were trained on.

    Raises: DataError: a line is not a group; names file and line.
    """
    for path in sorted(folder.glob("step_*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                record = json.loads(line)
                problem = record["problem"]
                prompt = Prompt(
                    Problem(problem["id"], tuple(problem["messages"]), problem["reference"], tuple(problem["tags"])),
                    tuple(record["prompt_token_ids"]),
                )
                yield group_from_record(record, prompt)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number}: not a dumped group ({error!r})") from error


class Replay:
    """Hands out dumped groups in the place of a collector: the group at place i of the dump for place i of the prompt stream."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._groups = list(read_groups(folder))

    def __len__(self) -> int:
        return len(self._groups)

    async def collect(self, index: int) -> RolloutGroup:
        """Raises: DataError: the dump has no more groups."""
        if index >= len(self._groups):
            raise DataError(f"rollouts.replay={self._folder}: its {len(self._groups)} groups are used up; lower num_steps")
        return replace(self._groups[index], index=index)


def group_record(group: RolloutGroup) -> dict[str, object]:
    """A group without its prompt, which its index leads back to."""
    return {
        "index": group.index,
        "rollouts": [_rollout_record(rollout) for rollout in group.rollouts],
        "greedy": _rollout_record(group.greedy) if group.greedy else None,
        "values": asdict(group.values) if group.values else None,
    }


def group_from_record(record: dict, prompt: Prompt) -> RolloutGroup:
    """Read what `group_record` wrote."""
    rollouts = tuple(_rollout(entry, prompt) for entry in record["rollouts"])
    values = _values(record["values"]) if record.get("values") else None
    return RolloutGroup(record["index"], rollouts, _rollout(record["greedy"], prompt) if record["greedy"] else None, values)


def _whole_record(group: RolloutGroup) -> dict[str, object]:
    prompt = group.rollouts[0].prompt
    return {"problem": asdict(prompt.problem), "prompt_token_ids": prompt.token_ids} | group_record(group)


def _rollout_record(rollout: Rollout) -> dict[str, object]:
    return {"completion": asdict(rollout.completion), "verdict": asdict(rollout.verdict), "step_ends": rollout.step_ends}


def _rollout(record: dict, prompt: Prompt) -> Rollout:
    completion, verdict = record["completion"], record["verdict"]
    lists = {name: tuple(value) for name, value in completion.items() if isinstance(value, list)}
    steps = tuple(StepScore(**step) for step in verdict["steps"])
    return Rollout(prompt, Completion(**(completion | lists)), Verdict(**{**verdict, "steps": steps}), tuple(record.get("step_ends", ())))


def _values(record: dict) -> GroupValues:
    steps = tuple(StepValues(tuple(each["ends"]), tuple(each["values"])) for each in record["steps"])
    return GroupValues(**{**record, "steps": steps})
