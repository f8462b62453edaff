"""What the package math-verify says of the same pair, for those who want to know where it differs. It runs in a worker with a deadline."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from verifiers.workers import DeadlineExceeded, WorkerCrashed, WorkerError, shared_pool


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """Asks math-verify in worker processes of its own."""

    num_workers: int
    deadline_seconds: float

    def __post_init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError("math-verify is not installed: pip install 'rlvr[math-verify]'")

    async def accepts(self, gold: str, answer: str) -> bool | None:
        """Whether math-verify finds the answer equal; None where it gave no verdict in time."""
        pool = shared_pool("verifiers.math.second_opinion:judge", num_workers=self.num_workers, deadline_seconds=self.deadline_seconds)
        try:
            return bool(await pool.acall(gold, answer))
        except (DeadlineExceeded, WorkerCrashed, WorkerError):
            return None


def judge(gold: str, answer: str) -> bool:
    """Run in the worker: math-verify with its defaults, gold and answer boxed as it expects them."""
    from math_verify import parse, verify

    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(f"\\boxed{{{answer}}}")))
