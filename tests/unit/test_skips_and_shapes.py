"""The test session itself: shapes are checked, and in CI a missing Docker, vLLM or DeepSpeed is a failure, not a skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent.parent

SKIPPING_TESTS = """
import pytest

@pytest.mark.docker
def test_marked():
    pytest.skip("the daemon sleeps")

def test_by_reason():
    pytest.skip("no vLLM here")

def test_of_something_else():
    pytest.skip("no data folder")
"""


def outcome(folder: Path, *, ci: str) -> str:
    (folder / "conftest.py").write_text((REPOSITORY / "tests" / "conftest.py").read_text())
    (folder / "test_skips.py").write_text(SKIPPING_TESTS)
    command = [sys.executable, "-m", "pytest", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, env={**os.environ, "CI": ci}, capture_output=True, text=True, timeout=120).stdout


def test_in_ci_a_skip_for_want_of_docker_vllm_or_deepspeed_fails(tmp_path):
    output = outcome(tmp_path, ci="true")
    assert "2 failed, 1 skipped" in output
    assert "skipped, which CI does not accept here" in output


def test_elsewhere_every_skip_is_printed_with_its_reason(tmp_path):
    output = outcome(tmp_path, ci="")
    assert "3 skipped" in output
    assert all(reason in output for reason in ("the daemon sleeps", "no vLLM here", "no data folder"))


def test_a_tensor_of_the_wrong_shape_is_refused_while_tests_run():
    from rlvr.advantages import GroupRewards

    with pytest.raises(jaxtyping.TypeCheckError):
        GroupRewards(torch.zeros(2, 2), torch.ones(2, dtype=torch.int64))


def test_torch_runs_on_one_thread():
    assert torch.get_num_threads() == 1
