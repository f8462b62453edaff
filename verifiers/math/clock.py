"""How long this thread may go on comparing. Evaluations look at it as they go, so that no answer costs more than it is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_limits = threading.local()


class OutOfTime(Exception):
    """The time for this comparison is over."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Let comparisons in this thread raise OutOfTime once so many seconds of its processor time have passed; None: let them go on."""
    before = getattr(_limits, "until", None)
    _limits.until = None if seconds is None else time.thread_time() + seconds
    try:
        yield
    finally:
        _limits.until = before


def check_time() -> None:
    """Raise OutOfTime if the time is over."""
    until = getattr(_limits, "until", None)
    if until is not None and time.thread_time() > until:
        raise OutOfTime
