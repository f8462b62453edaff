"""The verifier `format`: the response has the form asked for. It says nothing of whether the answer is right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verifiers.types import Problem, Response, Verdict


@dataclass(frozen=True, slots=True)
class Format:
    """Scores 1 where the whole response has the form, else 0.

    By default the form is `<think>…</think><answer>…</answer>`: each of `tags` once, in order, with something inside, and only white space
    between and around them. `pattern` is a regular expression for the whole stripped response instead (`.` matches line breaks); Python's
    engine takes exponential time on patterns like `(a*)*b`, so keep it simple. `prefix` is what the prompt already wrote of the response
    (`data.response_prefix`), such as `<think>`.
    """

    pattern: str | None = None
    tags: Sequence[str] = ("think", "answer")
    prefix: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.tags, str) or not self.tags or not all(isinstance(tag, str) and tag for tag in self.tags):
            raise ValueError(f"tags={self.tags!r} is not a list of tag names such as ['think', 'answer']")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except (re.error, TypeError) as error:
                raise ValueError(f"pattern={self.pattern!r} is not a regular expression: {error}") from error

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return [self._judge(response) for response in responses]

    def _judge(self, response: Response) -> Verdict:
        text = (self.prefix + response.text).strip()
        if response.finish_reason == "length":
            # What never ended is not whole, however well it begins: else a policy may learn not to stop.
            return Verdict(0.0, "truncated", explanation="cut off before it ended")
        fault = self._pattern_fault(text) if self.pattern is not None else self._tag_fault(text)
        return Verdict(1.0, "correct") if fault is None else Verdict(0.0, "incorrect", explanation=fault)

    def _pattern_fault(self, text: str) -> str | None:
        assert self.pattern is not None
        return None if re.fullmatch(self.pattern, text, re.DOTALL) else f"does not match {self.pattern!r}"

    def _tag_fault(self, text: str) -> str | None:
        """Say what first departs from the form; linear in the text."""
        end = 0
        for tag in self.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if text.count(opening) != 1 or text.count(closing) != 1:
                return f"{opening} and {closing} must each occur once, found {text.count(opening)} and {text.count(closing)}"
            start, stop = text.index(opening), text.index(closing)
            if text[end:start].strip() or start < end:
                return f"{opening} is out of order or has text before it"
            if not text[start + len(opening) : stop].strip():
                return f"nothing between {opening} and {closing}"
            end = stop + len(closing)
        return f"text after </{self.tags[-1]}>" if text[end:].strip() else None
