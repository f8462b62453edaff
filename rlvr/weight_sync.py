"""How the policy's weights reach the engine after each step."""

from __future__ import annotations

from typing import Protocol


class WeightSync(Protocol):
    """Brings an engine to the policy's current weights."""

    version: int
    """The version of the weights the engine samples with."""

    async def publish(self, version: int) -> None:
        """Return once everything sampled from now on is sampled with the policy's current weights, to be called `version`."""
        ...


class SharedModule:
    """For an engine that generates with the policy's own module: there is nothing to move, only the version to state."""

    def __init__(self, version: int = 0) -> None:
        self.version = version

    async def publish(self, version: int) -> None:
        self.version = version
