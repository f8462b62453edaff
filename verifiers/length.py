"""The verifier `length`: soft punishment of overlong responses, as a part of `weighted` beside a verifier of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifiers.types import Problem, Response, Verdict


def overlong_penalty(num_tokens: int, max_tokens: int, buffer_tokens: int, penalty: float) -> float:
    """Return what a response's length costs: nothing up to the buffer, then linearly up to the whole penalty at the limit.

    With limit L and buffer c: 0 for n <= L - c, penalty * (n - (L - c)) / c for L - c < n <= L, penalty beyond. DAPO, arXiv:2503.14476,
    equation 13 (there a negative reward with penalty 1).

    Example: L = 100, c = 20, penalty 1: 80 tokens cost 0, 90 cost 0.5, 100 cost 1.
    """
    excess = num_tokens - (max_tokens - buffer_tokens)
    return penalty * min(max(excess / buffer_tokens, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Length:
    """Scores 0 for responses up to `max_tokens - buffer_tokens`, then falls linearly to minus `penalty` at `max_tokens`.

    The outcome is `correct` while the punishment is 0, `partial` in the buffer, `incorrect` at the full punishment, and `truncated` where
    the response was cut off. The DAPO recipe has the same punishment as `algorithm.overlong`, from the sampling limit.
    """

    max_tokens: int
    buffer_tokens: int
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} is not at least 1")
        if not 1 <= self.buffer_tokens <= self.max_tokens:
            raise ValueError(f"buffer_tokens={self.buffer_tokens} is not between 1 and max_tokens={self.max_tokens}")
        if self.penalty < 0:
            raise ValueError(f"penalty={self.penalty} is negative: it is what a long response loses")

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [self._judge(response) for response in responses]

    def _judge(self, response: Response) -> Verdict:
        cost = overlong_penalty(response.num_tokens, self.max_tokens, self.buffer_tokens, self.penalty)
        note = f"{response.num_tokens} of {self.max_tokens} tokens" if cost else ""
        if response.finish_reason == "length":
            return Verdict(-cost, "truncated", explanation=note)
        full = response.num_tokens >= self.max_tokens
        return Verdict(-cost, "incorrect" if full else "partial" if cost else "correct", explanation=note)
