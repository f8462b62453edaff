"""Run as a script, by torchrun or alone: learns from the same dumped groups in several ways and writes where each ends as JSON.

    replayed_runs.py CONFIG.yaml GROUPS RUNS [KEY=VALUE,KEY=VALUE … ] result.json

Each argument between is one way: settings that are laid over the configuration. All run in the same processes, one after another.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rlvr.config import RunConfig
from rlvr.config_files import read_yaml, resolve
from rlvr.run import train


def main(config: str, groups: str, runs: str, *ways: str) -> None:
    *ways, result = ways
    exports = {}
    for number, way in enumerate(ways):
        name = f"way_{number}_of_{os.environ.get('WORLD_SIZE', '1')}"
        settings = [f"rollouts.replay={groups}", f"runs_folder={runs}", f"name={name}", *way.split(",")]
        exports[way] = str(train(resolve(RunConfig, read_yaml(Path(config)), settings).config).export)
    if os.environ.get("RANK", "0") == "0":
        Path(result).write_text(json.dumps(exports))


if __name__ == "__main__":
    main(*sys.argv[1:])
