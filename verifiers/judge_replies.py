"""Reads the score out of a judge's reply, and says in which form a judge is asked for it.

Reads the judge's words only, never the response that is judged. A reply that leaves a doubt is `UnreadableReply`, not a guess.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from verifiers.extraction import without_thought

Structure = Literal["json_schema", "json_object", "text"]
MAX_REPLY_CHARACTERS, MAX_REASON_CHARACTERS = 20_000, 600
MAX_LISTED_SCORES = 101  # A scale from 0 to 100, whole numbers.
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
MAX_SCORE_LINE_CHARACTERS = 200  # The pattern takes time quadratic in a line's blanks.
FINISHED = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
"""What services call the end of a reply that its model ended itself; the first is the standard's."""
# "Score: 7", "**Final score:** 7/10", "score = 7."; the line says nothing else. A line that begins with > is a quotation.
SCORE_LINE = re.compile(
    rf"^[\s*_#`-]*(?:final\s+|overall\s+)?score[\s*_`]*[:=][\s*_`]*({NUMBER}|nan|[-+]?inf(?:inity)?)\s*(?:/\s*({NUMBER}))?[\s*_`.]*$",
    re.IGNORECASE,
)
PLAIN_NUMBER = re.compile(NUMBER)


class UnreadableReply(Exception):
    """A judge's reply holds no score that could be relied on; the message completes "the judge's reply …"."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The scores a judge may give."""

    low: float
    high: float

    @classmethod
    def of(cls, given: Sequence[float]) -> Scale:
        """Raises: ValueError: not two finite numbers that ascend."""
        numbers = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
        if (
            len(numbers) != 2
            or any(isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each) for each in numbers)
            or not numbers[0] < numbers[1]
        ):
            raise ValueError(f"scale={given!r} is not the lowest and the highest score, such as [0, 10]")
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def share(self, score: float) -> float:
        """Return where on the scale a score lies, from 0 to 1."""
        return (score - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Reading:
    """The score a judge gave, on its own scale, and its reason as far as it gave one."""

    score: float
    reason: str


def response_format(structure: Structure, scale: Scale) -> dict[str, Any]:
    """Return the fields of a chat request that make the service give the form; none for text.

    The reason comes before the score, so that the score follows from it, and is bounded: a model that does not end a text would never come
    to the score.
    """
    if structure == "text":
        return {}
    if structure == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = {
        "type": "object",
        "properties": {"reason": {"type": "string", "maxLength": MAX_REASON_CHARACTERS}, "score": _score_schema(scale)},
        "required": ["reason", "score"],
        "additionalProperties": False,
    }
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}}


def read_reply(text: str, finish_reason: str, *, structure: Structure, scale: Scale) -> Reading:
    """Return the score and the reason in a reply.

    With `text` the reply must end with the score, in a JSON object that begins a line and has a `score`, or in a line that says only
    `score: N`: what stands elsewhere may be quoted from the response. Where there are several, all must agree. Otherwise the reply must be
    one JSON object.

    Raises: UnreadableReply: the reply is empty, was not finished, names no score, several, or one that is not on the scale.
    """
    if finish_reason == "length":
        raise UnreadableReply("was cut off: raise max_new_tokens")
    if finish_reason == "content_filter":
        raise UnreadableReply("was withheld by the service's filter")
    if finish_reason.lower() not in FINISHED:
        raise UnreadableReply(f"was not finished (finish_reason {finish_reason!r:.40})")
    text = without_thought(text).strip()
    if not text:
        raise UnreadableReply("is empty")
    if len(text) > MAX_REPLY_CHARACTERS:
        raise UnreadableReply(f"has {len(text)} characters, more than any verdict needs")
    readings = _written_scores(text, scale) if structure == "text" else [_read_object(_whole_object(text), scale)]
    if not readings:
        raise UnreadableReply(f"names no score: {_short(text)!r}")
    if len({reading.score for reading in readings}) > 1:
        raise UnreadableReply(f"names several scores: {', '.join(f'{reading.score:g}' for reading in readings)}")
    return Reading(readings[-1].score, next((reading.reason for reading in reversed(readings) if reading.reason), ""))


def _score_schema(scale: Scale) -> dict[str, Any]:
    whole = float(scale.low).is_integer() and float(scale.high).is_integer()
    if whole and scale.high - scale.low < MAX_LISTED_SCORES:  # A list is understood by every service, bounds are not.
        return {"type": "integer", "enum": list(range(int(scale.low), int(scale.high) + 1))}
    return {"type": "number", "minimum": scale.low, "maximum": scale.high}


def _whole_object(text: str) -> dict[str, Any]:
    if text.startswith("```"):
        text = text.removeprefix("```").removeprefix("json").removesuffix("```")
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise UnreadableReply(f"is not JSON: {_short(text)!r}") from error
    if not isinstance(found, dict):
        raise UnreadableReply(f"is no JSON object: {_short(text)!r}")
    return found


def _written_scores(text: str, scale: Scale) -> list[Reading]:
    """Raises: UnreadableReply: there are scores, and the text does not end with one."""
    text = text.removesuffix("```").rstrip()
    decoder = json.JSONDecoder(object_pairs_hook=_without_doubles)
    readings: list[Reading] = []
    outside: list[str] = []  # What stands inside an object, such as a quotation in its reason, is no line of the reply.
    start = object_end = 0
    while (brace := text.find("{", start)) >= 0:
        try:
            found, end = decoder.raw_decode(text, brace)
        except (ValueError, RecursionError):
            found, end = None, brace + 1
        if isinstance(found, dict) and "score" in found and _begins_line(text, brace):
            outside.append(text[start:brace])
            readings.append(_read_object(found, scale))
            object_end = end
        else:
            outside.append(text[start:end])
        start = end
    outside.append(text[start:])
    lines = [_read_line(line, scale) for line in "".join(outside).splitlines()]
    readings += [reading for reading in lines if reading is not None]
    if readings and object_end < len(text) and lines[-1] is None:
        raise UnreadableReply("does not end with its score: what stands before the end may be a quotation")
    return readings


def _begins_line(text: str, place: int) -> bool:
    return not text[text.rfind("\n", 0, place) + 1 : place].strip()


def _read_line(line: str, scale: Scale) -> Reading | None:
    match = SCORE_LINE.match(line) if len(line) <= MAX_SCORE_LINE_CHARACTERS else None
    if match is None:
        return None
    if match.group(2) is not None and float(match.group(2)) != scale.high:
        raise UnreadableReply(f"scores out of {match.group(2)} instead of {scale.high:g}")
    return Reading(_on_scale(float(match.group(1)), scale), "")


def _read_object(found: dict[str, Any], scale: Scale) -> Reading:
    if "score" not in found:
        raise UnreadableReply(f"names no score: {_short(json.dumps(found))!r}")
    score = found["score"]
    if isinstance(score, str) and PLAIN_NUMBER.fullmatch(score.strip()):
        score = float(score)
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise UnreadableReply(f"has the score {_short(json.dumps(score))}, which is no number")
    reason = found.get("reason")
    # A lone surrogate, which JSON may hold, would fail whoever writes the reason down.
    return Reading(_on_scale(score, scale), reason.encode("utf-8", "backslashreplace").decode() if isinstance(reason, str) else "")


def _on_scale(score: float, scale: Scale) -> float:
    if not scale.low <= score <= scale.high:  # NaN compares false.
        raise UnreadableReply(f"has the score {score!r:.40}, which is not on the scale from {scale}")
    return float(score)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    scores = [value for name, value in pairs if name == "score"]
    if any(value != scores[0] for value in scores[1:]):
        raise UnreadableReply("names several scores in one object")
    return dict(pairs)


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
