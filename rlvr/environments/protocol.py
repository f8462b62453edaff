"""The seam between a policy that writes and a world that answers: several turns, tools, dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from verifiers.types import Message, Problem


@dataclass(frozen=True, slots=True)
class Turn:
    """What comes after a reply of the policy: messages that it did not write, or the end."""

    messages: tuple[Message, ...] = ()
    done: bool = False


@runtime_checkable
class Environment(Protocol):
    """Answers the policy's replies. One object serves all episodes at once: what an episode needs to know is in its messages."""

    async def reset(self, problem: Problem) -> tuple[Message, ...]:
        """Return the messages an episode begins with, the problem's own or more; the same for all episodes of a group.

        Raises: EnvironmentFailed: the infrastructure failed.
        """
        ...

    async def step(self, problem: Problem, messages: Sequence[Message]) -> Turn:
        """Answer the last of the messages, which the policy wrote; the same messages always get the same kind of answer.

        Raises: EnvironmentFailed: the infrastructure failed. It drops the group, and is never a bad score.
        """
        ...
