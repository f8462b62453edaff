"""DeepSpeed as it is installed here trains on a CPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.deepspeed,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install 'rlvr[deepspeed]'"),
]

SCRIPT = Path(__file__).with_name("two_steps.py")


def test_two_zero_1_steps_over_gloo_equal_plain_adamw(run_script):
    ends = run_script(SCRIPT)
    start, plain, sharded = (torch.tensor(ends[name]) for name in ("start", "torch", "deepspeed"))
    # AdamW's first two steps move almost every weight by about the learning rate, 1e-2, each.
    assert (plain - start).abs().median() > 5e-3
    torch.testing.assert_close(sharded, plain, atol=1e-6, rtol=0)
