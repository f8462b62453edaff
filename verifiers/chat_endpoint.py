"""Asks OpenAI-compatible chat services: several addresses of one model, retries with patience, a deadline for every request.

What cannot be had is an `EndpointError` that says why; never an empty answer.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from verifiers.service import NoAnswer, Request, ask_service, checked_address

T = TypeVar("T")
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
ABOUT_THE_REQUEST = frozenset({400, 413, 422})
"""Statuses of a request that is wrong in itself, such as a prompt that is too long."""


class EndpointError(Exception):
    """A service did not answer, refused, or answered with something that is no completion. `refused`: asking again is of no use.
    `is_request`: the request alone is at fault, and others may be answered."""

    def __init__(self, message: str, *, refused: bool = False, is_request: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.is_request = is_request


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One completion. `num_tokens` is what the service counted; None where it does not say. `finish_reason` is its own word."""

    text: str
    finish_reason: str
    num_tokens: int | None


class ChatEndpoint:
    """One model behind one address or several. Not safe to share between event loops."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        model: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        timeout_seconds: float = 600.0,
        max_attempts: int = 5,
        concurrency: int = 64,
    ) -> None:
        """`concurrency` bounds the requests in flight at each address."""
        import httpx

        if not urls:
            raise ValueError("an endpoint needs at least one address")
        try:
            self.urls = [checked_address(url) for url in urls]
        except ValueError as error:
            raise EndpointError(str(error), refused=True) from error
        self.model = model
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts
        self._owed = dict.fromkeys(self.urls, 0)
        self._places = asyncio.Semaphore(concurrency * len(self.urls))
        key = os.environ.get(api_key_variable, "")
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(f"the key in {api_key_variable} holds what no header can, such as a line break", refused=True)
        self._client = httpx.AsyncClient(
            timeout=None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def find_model(self) -> str:
        """Return the name the model is served under: the one given, or the only one there is.

        Raises: EndpointError: the service does not answer, or serves several.
        """
        if self.model is None:
            names = await self._with_patience(
                Request("GET", "/models", _model_names, "list of models: is it an OpenAI-compatible address?")
            )
            if len(names) != 1:
                raise EndpointError(f"{self.urls[0]} serves {len(names)} models ({', '.join(names[:8])}): name one", refused=True)
            self.model = names[0]
        return self.model

    async def ask(self, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any]) -> ChatAnswer:
        """Return one completion of a conversation; `parameters` go into the request as they are.

        Raises: EndpointError: every attempt failed, or the request was refused.
        """
        body = {"model": await self.find_model(), "messages": [dict(message) for message in messages], **parameters}
        return await self._with_patience(Request("POST", "/chat/completions", _chat_answer, "chat completion", body))

    async def close(self) -> None:
        await self._client.aclose()

    async def _with_patience(self, request: Request[T]) -> T:
        wait = FIRST_WAIT_SECONDS
        async with self._places:
            failures = dict.fromkeys(self.urls, 0)
            for attempt in range(1, self._max_attempts + 1):
                # An address that failed this request owes nothing and would be the first choice again.
                url = min(self.urls, key=lambda each: (failures[each], self._owed[each]))
                self._owed[url] += 1
                try:
                    return await self._once(url, request)
                except EndpointError as error:
                    failures[url] += 1
                    if error.refused or attempt == self._max_attempts:
                        raise
                finally:
                    self._owed[url] -= 1
                # Spread out, so that those turned away together do not return together.
                await asyncio.sleep(wait * (0.5 + random.random()))
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise AssertionError("max_attempts is at least 1")

    async def _once(self, url: str, request: Request[T]) -> T:
        try:
            return await ask_service(self._client, url, request, timeout_seconds=self._timeout_seconds)
        except NoAnswer as error:
            refused = error.unusable or (error.status is not None and error.status not in PASSING)
            raise EndpointError(str(error), refused=refused, is_request=error.status in ABOUT_THE_REQUEST) from error


def _model_names(answer: Any) -> list[str]:
    return [str(each["id"]) for each in answer["data"]]


def _chat_answer(answer: Any) -> ChatAnswer:
    choice = answer["choices"][0]
    text = choice["message"].get("content")
    if not isinstance(text, str | None):
        raise TypeError("the content is no text")
    tokens = (answer.get("usage") or {}).get("completion_tokens")
    return ChatAnswer(text or "", str(choice["finish_reason"]), tokens if type(tokens) is int and tokens >= 0 else None)
