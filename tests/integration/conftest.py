"""Runs a script in its own process: vLLM and DeepSpeed take over torch.distributed and the CPU threads of the process they are in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Any]:
    """Run `script *arguments result.json` under a deadline and return what it wrote to result.json."""
    return _runner(tmp_path)


@pytest.fixture(scope="module")
def run_module_script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The same, for a fixture that several tests of a module read."""
    return _runner(tmp_path_factory.mktemp("script"))


def _runner(tmp_path: Path) -> Callable[..., Any]:
    def run(script: Path, *arguments: str | Path, deadline_seconds: float = 300) -> Any:
        result = tmp_path / "result.json"
        command = [sys.executable, str(script), *map(str, arguments), str(result)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=deadline_seconds)
        assert done.returncode == 0, f"{script.name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return json.loads(result.read_text())

    return run
