"""Run as a script: a short training run whose engine is vLLM in this process, and its metrics as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rlvr.run import train
from rlvr.tracking.metrics import read_metrics
from tests.integration.runs.small_runs import small_run


def main(model: str, folder: str, changes: str, result: str) -> None:
    settings = {"engine": {"name": "vllm"}, "model": {"dtype": "float32"}, "weight_sync": {"verify_every": 1}}
    run = train(small_run(Path(folder), Path(model), **(settings | json.loads(changes))))
    Path(result).write_text(json.dumps([dict(row.values) | {"step": row.step} for row in read_metrics(run.folder / "metrics.jsonl")]))


if __name__ == "__main__":
    main(*sys.argv[1:])
