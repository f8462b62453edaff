"""The one thread on which all model computation runs, so that decoding and updates never overlap and the event loop never blocks.

Work is done strictly in the order it was submitted. It cannot be interrupted: a caller that is cancelled leaves at once, its work, if
already begun, runs to its end with the result dropped, and the next work starts only after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class ComputeThread:
    """A dedicated thread for torch work; a context manager that waits for running work when it is left."""

    def __init__(self, *, num_threads: int | None = None) -> None:
        """`num_threads`: torch's intra-op threads for work done here; None leaves torch's choice."""
        self._num_threads = num_threads
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rlvr-compute", initializer=self._prepare)

    def _prepare(self) -> None:
        # OpenMP keeps the number of threads per calling thread, so it has to be set from inside.
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function on the compute thread and return its result or raise its exception."""
        return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Drop work not yet begun, wait for work that is running, and end the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ComputeThread:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
