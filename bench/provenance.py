"""What a figure has to name besides its date: the machine and the commit it was measured on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """Return the short name of the checkout's commit, with a + where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty=+"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return described or "unknown"


def processor() -> str:
    """Name the processor, where the system tells."""
    path = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return match[1] if match else "unknown processor"
