"""Keeps memory freed on CPU for the next micro-batch instead of handing it back to the system page by page."""

from __future__ import annotations

import ctypes
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Tell glibc to serve large tensors from its heap and never to trim it; elsewhere do nothing.

    Otherwise each micro-batch faults its activations in anew: measured at 8 % of an update's CPU time on the main thread and 3 % on another
    (docs/decisions/0002). The process then holds its peak, which the next update needs again anyway.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
        # Other threads' arenas are chains of 64 MiB maps that come and go; one arena serves the one compute thread.
        mallopt(M_ARENA_MAX, 1)
