"""Asks vLLM servers that pool for the logits of a token classifier. What cannot be had is a `VerifierError` that says why.

Measured with vLLM 0.32: `POST /pooling` with token ids, task `token_classify` and no activation gives the logits of every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from verifiers.errors import VerifierError, VerifierTimeout
from verifiers.service import NoAnswer, Request, ask_service, checked_address

T = TypeVar("T")
Logits = tuple[float, float]
ROUNDING = 0.005
"""How far two probabilities in bfloat16 are from a sum of 1."""
BYTES_PER_TOKEN, OTHER_BYTES = 500, 2**20
"""Of an answer; two logits take some fifty."""


class PoolingEndpoint:
    """One model behind one address or several; each request goes to the address that owes fewest, and to another where it fails."""

    def __init__(self, urls: Sequence[str], *, timeout_seconds: float) -> None:
        """Raises: ValueError: there is no address, or one that is none, or one twice."""
        if not urls:
            raise ValueError("url: give at least one address, such as http://127.0.0.1:8000")
        self._urls = [checked_address(url) for url in urls]
        if len(set(self._urls)) < len(self._urls):
            raise ValueError(f"url names a server twice: {', '.join(self._urls)}")
        self._timeout_seconds = timeout_seconds
        self._owed = dict.fromkeys(self._urls, 0)
        self._model: str | None = None
        self._max_tokens: int | None = None

    async def max_tokens(self) -> int:
        """Return the longest input the servers take."""
        if self._max_tokens is None:
            self._model, self._max_tokens = await self._ask(Request("GET", "/v1/models", _name_and_length, "list of one model"))
        return self._max_tokens

    async def logits(self, inputs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[Logits]]:
        """Return, for each pair of token ids and places in them, the two classes' logits at the places."""
        await self.max_tokens()
        body = {
            "model": self._model,
            "input": [list(ids) for ids, _ in inputs],
            "task": "token_classify",
            "use_activation": False,
            "encoding_format": "float",
        }
        lengths = [len(ids) for ids, _ in inputs]
        request = Request(
            "POST",
            "/pooling",
            lambda answer: _tables(answer, lengths),
            "table of two logits a token",
            body,
            max_bytes=OTHER_BYTES + BYTES_PER_TOKEN * sum(lengths),
        )
        tables = await self._ask(request)
        return [[table[place] for place in places] for table, (_, places) in zip(tables, inputs, strict=True)]

    async def _ask(self, request: Request[T]) -> T:
        import httpx

        failures: dict[str, NoAnswer] = {}
        for _ in self._urls:
            url = min((each for each in self._urls if each not in failures), key=self._owed.__getitem__)
            self._owed[url] += 1
            try:
                async with httpx.AsyncClient(timeout=None) as client:
                    return await ask_service(client, url, request, timeout_seconds=self._timeout_seconds)
            except NoAnswer as error:
                failures[url] = error
            finally:
                self._owed[url] -= 1
        first = failures[self._urls[0]]
        raise (VerifierTimeout if first.late else VerifierError)(str(first)) from first


def _name_and_length(answer: Any) -> tuple[str, int]:
    [model] = answer["data"]
    name, longest = model["id"], model["max_model_len"]
    if not isinstance(name, str) or type(longest) is not int or longest < 1:
        raise ValueError("no name, or no length of at least 1")
    return name, longest


def _tables(answer: Any, lengths: Sequence[int]) -> list[list[Logits]]:
    """Return two logits for each token of each input."""
    rows = {each["index"]: each["data"] for each in answer["data"]}
    if len(answer["data"]) != len(lengths) or rows.keys() != set(range(len(lengths))):
        raise ValueError(f"the indexes {[each['index'] for each in answer['data']]!r:.80} for {len(lengths)} inputs")
    return [_table(rows[index], length) for index, length in enumerate(lengths)]


def _table(rows: Any, length: int) -> list[Logits]:
    if not isinstance(rows, list) or len(rows) != length:
        raise ValueError(f"{len(rows)} rows for {length} tokens")
    table = [_pair(row) for row in rows]
    if all(min(pair) >= 0 and abs(sum(pair) - 1) < ROUNDING for pair in table):
        raise ValueError("probabilities: this server does not know use_activation=false, which vLLM 0.32 does")
    return table


def _pair(row: Any) -> Logits:
    if not isinstance(row, list) or not all(type(each) in (int, float) for each in row):
        raise TypeError(f"a row is {row!r:.80}")
    first, second = row
    return float(first), float(second)
