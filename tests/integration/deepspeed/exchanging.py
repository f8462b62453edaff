"""Run as a script by torchrun: two ranks with very different work share it out, and write what each then has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rlvr.config import DataConfig, DeepSpeedConfig, ModelConfig, SftConfig
from rlvr.distributed import joined_ranks
from rlvr.exchange import WorkSplit, share_out
from rlvr.types import TrainSample


def sample(group: int, length: int) -> TrainSample:
    blank = (0.0,) * length
    return TrainSample((7,) * length, (False,) + (True,) * (length - 1), blank, blank, policy_version=0, group_index=group)


def main(team_size: str, result: str) -> None:
    deepspeed = DeepSpeedConfig(sequence_parallel_size=int(team_size))
    with joined_ranks(SftConfig(model=ModelConfig(path="none"), data=DataConfig(path="none"), deepspeed=deepspeed)) as ranks:
        # Rank 0 has eight short completions, rank 1 eight of nine times their length.
        mine = [sample(2 * i + ranks.rank, 90 if ranks.rank else 10) for i in range(8)]
        [shared] = share_out([mine], ranks, WorkSplit(tokens_per_microbatch=1000, share_prompts=True, hidden=64), balance=True)
        everyone = ranks.everyones([(s.group_index, len(s.token_ids)) for s in shared])
        if ranks.is_main:
            Path(result).write_text(json.dumps(everyone))


if __name__ == "__main__":
    main(*sys.argv[1:])
