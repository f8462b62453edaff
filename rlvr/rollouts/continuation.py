"""Continues the beginning of a completion, and has what comes of it judged as a whole response.

What the policy wrote is continued as its own tokens, never encoded again. A continuation that cannot be judged has no verdict: whoever
asked leaves it out and counts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.engines.protocol import Engine
from rlvr.judge import Judge
from rlvr.response_lines import WrittenResponse
from rlvr.step_tokens import Decode
from rlvr.types import Prompt, Sampling
from verifiers.errors import VerifierError
from verifiers.types import Problem, Response, Verdict

JUDGED_AT_ONCE = 16
"""Beginnings with the verifier at once: more would only wait inside it, while its deadline runs."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts on those responses that could be judged, in their order, how many could not, and the tokens written for them."""

    verdicts: tuple[Verdict, ...]
    num_unjudged: int
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Continuer:
    """Draws continuations and has them judged. `decode` makes text of tokens as engines do."""

    engine: Engine
    judge: Judge
    decode: Decode
    judging: asyncio.Semaphore

    async def continued(self, prompt: Prompt, prefix: tuple[int, ...], sampling: Sampling) -> Judged:
        """Return the verdicts on `sampling.num_samples` responses that begin with the prefix; the limit of tokens is for what is new."""
        drawn = await self.engine.generate((*prompt.token_ids, *prefix), sampling)
        responses = [
            WrittenResponse(self.decode((*prefix, *each.token_ids)), each.finish_reason, len(prefix) + each.num_tokens) for each in drawn
        ]
        return await self.judged(prompt.problem, responses, num_tokens=sum(each.num_tokens for each in drawn))

    async def judged(self, problem: Problem, responses: Sequence[Response], *, num_tokens: int = 0) -> Judged:
        """Judge the responses together; where that fails each by itself, so that one does not take the others' verdicts with it."""
        async with self.judging:
            try:
                return Judged(tuple(await self.judge(problem, responses)), 0, num_tokens)
            except VerifierError:
                verdicts = [verdict for response in responses for verdict in await self._alone(problem, response)]
        return Judged(tuple(verdicts), len(responses) - len(verdicts), num_tokens)

    async def _alone(self, problem: Problem, response: Response) -> list[Verdict]:
        try:
            return await self.judge(problem, [response])
        except VerifierError:
            return []
