"""One request to a model's service and what is read from its JSON answer, within a time and a size, whatever the service does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
MAX_ANSWER_BYTES = 64 * 2**20
SHOWN_CHARACTERS = 300


class NoAnswer(Exception):
    """A service did not give what was asked for.

    `status` is that of an answer other than 200. `late`: it took too long. `unusable`: the address is none.
    """

    def __init__(self, message: str, *, status: int | None = None, late: bool = False, unusable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.late = late
        self.unusable = unusable


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """What is asked at an address. `read` takes `wanted` out of an answer, or fails with what Python raises at a wrong shape.

    `max_bytes` is counted after decompression: an answer without end fills no memory.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    wanted: str
    body: Mapping[str, Any] | None = None
    max_bytes: int = MAX_ANSWER_BYTES


def checked_address(url: str) -> str:
    """Return an address without the slash at its end. Raises: ValueError: it is none."""
    reason: object = "it must begin with http:// or https:// and name a host"
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:  # `port` is checked when it is read.
            return url.rstrip("/")
    except ValueError as error:
        reason = error
    raise ValueError(f"{url!r} is no address: {reason}")


async def ask_service(client: httpx.AsyncClient, address: str, request: Request[T], *, timeout_seconds: float) -> T:
    """Return what the request wants from an answer of status 200. Raises: NoAnswer: it was not to be had; the message names the address."""
    import httpx

    url = address + request.path
    content = None if request.body is None else json.dumps(request.body)  # Escaped: UTF-8 cannot hold a lone surrogate.
    sending = client.stream(request.method, url, content=content, headers={"Content-Type": "application/json"})
    try:
        async with asyncio.timeout(timeout_seconds), sending as response:
            received = bytearray()
            async for piece in response.aiter_bytes():
                received += piece
                if len(received) > request.max_bytes:
                    raise NoAnswer(f"{url} answered with more than {request.max_bytes} bytes")
    except TimeoutError as error:
        raise NoAnswer(f"{url} did not answer within {timeout_seconds:g} s", late=True) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise NoAnswer(f"{url} is no address: {error}", unusable=True) from error
    except httpx.HTTPError as error:
        raise NoAnswer(f"{url} cannot be reached ({type(error).__name__}: {error})") from error
    shown = received[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace")[:SHOWN_CHARACTERS]
    if response.status_code != 200:
        raise NoAnswer(f"{url} answered with status {response.status_code}: {shown}", status=response.status_code)
    try:
        answer = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"{url} answered with something that is not JSON: {shown!r}") from error
    try:
        return request.read(answer)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NoAnswer(f"{url} answered with something that is no {request.wanted} ({error!r:.200}): {shown}") from error
