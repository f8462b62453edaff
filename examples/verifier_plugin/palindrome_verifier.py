"""The verifier `palindrome`: the answer reads the same backwards and is long enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifiers.extraction import extract
from verifiers.types import Problem, Response, Verdict


@dataclass(frozen=True)
class Palindrome:
    """Scores 1 for a palindrome of at least `min_letters` letters; needs no gold answer."""

    min_letters: int = 3

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [self._judge(response) for response in responses]

    def _judge(self, response: Response) -> Verdict:
        answer = extract(response.text)
        if answer is None:
            return Verdict(0.0, "truncated" if response.finish_reason == "length" else "unparseable")
        letters = [letter for letter in answer.casefold() if letter.isalpha()]
        right = len(letters) >= self.min_letters and letters == letters[::-1]
        return Verdict(float(right), "correct" if right else "incorrect", extracted=answer)
