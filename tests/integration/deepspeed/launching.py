"""Starts several processes as users do."""

from __future__ import annotations

import sys


def torchrun(num_processes: int) -> list[str]:
    """The command that starts a script or `-m module` on this machine, at a port that is free."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
