"""The last stage: computer algebra, in a worker process that is killed at its deadline. This side imports no sympy."""

from __future__ import annotations

from dataclasses import dataclass

from verifiers.math.answers import TOO_DEEP, read
from verifiers.math.quantities import Rules
from verifiers.math.scalars import Match
from verifiers.workers import shared_pool

ALGEBRAIC = frozenset({"sum", "product", "integral", "limit"})


@dataclass(frozen=True, slots=True)
class Symbolic:
    """Asks the workers; they are shared by all verifiers of a process with the same settings, and start when first needed."""

    num_workers: int
    deadline_seconds: float

    async def compare(self, gold: str, values: tuple[str, ...], rules: Rules) -> Match:
        """Compare with computer algebra.

        Raises: DeadlineExceeded.
        """
        pool = shared_pool("verifiers.math.algebra:judge", num_workers=self.num_workers, deadline_seconds=self.deadline_seconds)
        return Match(await pool.acall(gold, list(values), rules.tolerance))


def needs_algebra(*texts: str) -> bool:
    """Whether a worker could tell more about these texts than the bounded stages did."""
    for text in texts:
        reading = read(text)
        if reading.problem == TOO_DEEP or (reading.tree is not None and any(node.kind in ALGEBRAIC for node in reading.tree.walk())):
            return True
    return False
