"""Chat services over real HTTP: what is retried, what is refused, and that every fault of a service is an `EndpointError`."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from verifiers.chat_endpoint import ChatAnswer, ChatEndpoint, EndpointError
from verifiers.service import MAX_ANSWER_BYTES

ASKED = [{"role": "user", "content": "1+1?"}]
DEADLINE_SECONDS = 10.0  # For what a test waits for; never reached where it passes.


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What the service sends; `missing_bytes` more are announced, and the connection closed instead."""

    status: int = 200
    body: bytes = b""
    missing_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Service:
    """A server in a thread, with the requests it had; `over` is set when it ends."""

    reply: Callable[[Request], Reply]
    over: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)
    url: str = ""


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())


def completion(content: Any = "2", finish_reason: Any = "stop", **more: Any) -> Reply:
    return as_json({"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}], **more})


def models(*names: str) -> Reply:
    return as_json({"object": "list", "data": [{"id": name} for name in names]})


def in_turn(*replies: Reply) -> Callable[[Request], Reply]:
    """Each reply once, the last for ever."""
    left = list(replies)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def serving(reply: Callable[[Request], Reply] | Reply, host: str = "127.0.0.1") -> Iterator[Service]:
    service = Service(reply if callable(reply) else in_turn(reply))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.path, dict(self.headers.items()), json.loads(body) if body else None)
            service.requests.append(request)
            answer = service.reply(request)
            try:
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body) + answer.missing_bytes))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:
                pass  # Who asked has given up.

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        service.url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            service.over.set()
            server.shutdown()
            thread.join()


def unused_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def ask(
    *urls: str, times: int = 1, messages: Sequence[dict[str, str]] = ASKED, model: str | None = "m", max_attempts: int = 1, **options: Any
) -> list[ChatAnswer]:
    """Ask so many times at once."""

    async def asking() -> list[ChatAnswer]:
        endpoint = ChatEndpoint(urls, model=model, max_attempts=max_attempts, **options)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
                tasks = [group.create_task(endpoint.ask(messages, {"temperature": 0.5, "max_tokens": 8})) for _ in range(times)]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await endpoint.close()
        return [task.result() for task in tasks]

    return asyncio.run(asking())


def test_an_answer_is_the_text_with_its_reason_and_the_tokens_counted_by_the_service() -> None:
    with serving(completion("2", "length", usage={"completion_tokens": 7})) as service:
        assert ask(service.url + "/") == [ChatAnswer("2", "length", 7)]
    [request] = service.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {"model": "m", "messages": ASKED, "temperature": 0.5, "max_tokens": 8}


@pytest.mark.parametrize(
    "more", [{}, {"usage": None}, {"usage": {}}, {"usage": {"completion_tokens": None}}, {"usage": {"completion_tokens": -5}}]
)
def test_tokens_that_a_service_does_not_count_are_not_invented(more: dict[str, Any]) -> None:
    with serving(completion("2", "stop", **more)) as service:
        assert ask(service.url) == [ChatAnswer("2", "stop", None)]


def test_null_content_is_an_empty_text_that_keeps_its_reason() -> None:
    # A model that was cut off while it thought, where the service keeps thoughts apart.
    with serving(completion(None, "length")) as service:
        assert ask(service.url) == [ChatAnswer("", "length", None)]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again(status: int) -> None:
    with serving(in_turn(as_json({"error": "busy"}, status), completion("2"))) as service:
        assert [answer.text for answer in ask(service.url, max_attempts=2)] == ["2"]
    assert len(service.requests) == 2


def test_a_service_that_stays_busy_fails_after_the_last_attempt() -> None:
    with serving(as_json({"error": "out of memory"}, 503)) as service:
        with pytest.raises(EndpointError, match=r"/v1/chat/completions answered with status 503: .*out of memory") as raised:
            ask(service.url, max_attempts=2)
    assert len(service.requests) == 2 and not raised.value.refused


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    with serving(as_json({"error": "no such thing"}, status)) as service:
        with pytest.raises(EndpointError, match=rf"answered with status {status}: .*no such thing") as raised:
            ask(service.url, max_attempts=5)
    assert len(service.requests) == 1 and raised.value.refused


def test_a_service_that_is_down_is_named() -> None:
    url = unused_url()
    with pytest.raises(EndpointError, match=f"{url}/chat/completions cannot be reached") as raised:
        ask(url)
    assert not raised.value.refused


def test_an_answer_after_the_deadline_is_none() -> None:
    with serving(lambda request: Reply() if service.over.wait(DEADLINE_SECONDS) else completion("late")) as service:
        with pytest.raises(EndpointError, match=r"did not answer within 0\.2 s"):
            ask(service.url, timeout_seconds=0.2)


def test_a_slow_service_is_asked_again() -> None:
    def reply(request: Request) -> Reply:
        if len(service.requests) == 1:
            service.over.wait(DEADLINE_SECONDS)
        return completion("2")

    with serving(reply) as service:
        assert ask(service.url, timeout_seconds=1.0, max_attempts=2) == [ChatAnswer("2", "stop", None)]


def test_the_callers_own_deadline_passes_through() -> None:
    async def impatient(url: str) -> None:
        endpoint = ChatEndpoint([url], model="m")
        try:
            async with asyncio.timeout(0.2):
                await endpoint.ask(ASKED, {})
        finally:
            await endpoint.close()

    with serving(lambda request: Reply() if service.over.wait(DEADLINE_SECONDS) else Reply()) as service, pytest.raises(TimeoutError):
        asyncio.run(impatient(service.url))


def test_half_an_answer_is_none() -> None:
    whole = completion("2").body
    with serving(Reply(200, whole[:20], len(whole) - 20)) as service:
        with pytest.raises(EndpointError, match=r"cannot be reached \(RemoteProtocolError"):
            ask(service.url)


def test_a_web_page_is_no_answer() -> None:
    with serving(Reply(200, b"<html>Welcome</html>")) as service:
        with pytest.raises(EndpointError, match="something that is not JSON: '<html>Welcome</html>'"):
            ask(service.url)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "2",
        None,
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{"text": "2", "finish_reason": "stop"}]},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "2"}}]},
        {"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}], "usage": [3]},
        {"choices": [{"message": {"content": [{"type": "text", "text": "2"}]}, "finish_reason": "stop"}]},
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_json_of_another_shape_is_no_completion(value: Any) -> None:
    with serving(as_json(value)) as service, pytest.raises(EndpointError, match="something that is no chat completion"):
        ask(service.url)


def test_a_service_that_answers_garbage_once_is_asked_again() -> None:
    with serving(in_turn(as_json({"choices": []}), completion("2"))) as service:
        assert ask(service.url, max_attempts=2)[0].text == "2"


def test_a_status_in_an_unknown_character_set_is_shown() -> None:
    with serving(Reply(500, b"no memory \xff", headers={"Content-Type": "text/html; charset=idna"})) as service:
        with pytest.raises(EndpointError, match="answered with status 500: no memory \ufffd"):
            ask(service.url)


def test_an_answer_without_end_fills_no_memory() -> None:
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1), 1)
    with serving(Reply(200, bomb, headers={"Content-Encoding": "gzip"})) as service:
        with pytest.raises(EndpointError, match=f"answered with more than {MAX_ANSWER_BYTES} bytes"):
            ask(service.url)


def test_nesting_without_end_is_no_answer() -> None:
    with serving(Reply(200, b"[" * 200_000)) as service, pytest.raises(EndpointError, match="something that is not JSON"):
        ask(service.url)


def test_several_addresses_share_the_load() -> None:
    # Eight at once: each goes where the fewest are under way, so four to each. All wait for the last, so none is answered before.
    together = threading.Barrier(8)

    def reply(request: Request) -> Reply:
        together.wait(DEADLINE_SECONDS)
        return completion("2")

    with serving(reply) as first, serving(reply) as second:
        assert len(ask(first.url, second.url, times=8)) == 8
    assert (len(first.requests), len(second.requests)) == (4, 4)


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("place", [0, 1])
def test_one_address_of_several_may_be_down(place: int, times: int) -> None:
    # Two addresses, two attempts: whoever was turned away by the one asks the other.
    with serving(completion("2")) as service:
        urls = [service.url]
        urls.insert(place, unused_url())
        assert [answer.text for answer in ask(*urls, times=times, max_attempts=2)] == ["2"] * times


def test_no_more_are_under_way_at_an_address_than_allowed() -> None:
    # Twelve, three at a time: every three wait for each other, and a fourth is never there.
    together, lock, under_way, most = threading.Barrier(3), threading.Lock(), 0, 0

    def reply(request: Request) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(DEADLINE_SECONDS)
        with lock:
            under_way -= 1
        together.wait(DEADLINE_SECONDS)  # None is answered, and none replaced, before all three are counted out.
        return completion("2")

    with serving(reply) as service:
        assert len(ask(service.url, times=12, concurrency=3)) == 12
    assert most == 3


def test_the_only_model_there_is_needs_no_name() -> None:
    with serving(lambda request: models("served") if request.path == "/v1/models" else completion("2")) as service:
        ask(service.url, model=None)
    assert [request.path for request in service.requests] == ["/v1/models", "/v1/chat/completions"]
    assert service.requests[1].body["model"] == "served"


@pytest.mark.parametrize(("names", "message"), [(("a", "b"), r"serves 2 models \(a, b\): name one"), ((), "serves 0 models")])
def test_of_several_models_one_must_be_named(names: tuple[str, ...], message: str) -> None:
    with serving(models(*names)) as service:
        with pytest.raises(EndpointError, match=message) as raised:
            ask(service.url, model=None)
    assert raised.value.refused and len(service.requests) == 1


@pytest.mark.parametrize("value", [[], None, {}, {"data": 3}, {"data": [{}]}, {"data": ["m"]}], ids=json.dumps)
def test_a_list_of_models_that_is_none_asks_for_the_right_address(value: Any) -> None:
    with serving(as_json(value)) as service, pytest.raises(EndpointError, match="is it an OpenAI-compatible address"):
        ask(service.url, model=None)


def test_the_key_comes_from_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "standard")
    monkeypatch.setenv("MY_KEY", "my-own")
    monkeypatch.delenv("NO_KEY", raising=False)
    with serving(completion("2")) as service:
        for options in ({}, {"api_key_variable": "MY_KEY"}, {"api_key_variable": "NO_KEY"}):
            ask(service.url, **options)
    assert [request.headers.get("Authorization") for request in service.requests] == ["Bearer standard", "Bearer my-own", None]


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secr\u00e9t"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with serving(completion("2")) as service, pytest.raises(EndpointError, match="MY_KEY") as raised:
        ask(service.url, api_key_variable="MY_KEY", max_attempts=2)
    assert "secr" not in str(raised.value) and not service.requests


def test_text_that_utf8_cannot_hold_is_sent_escaped() -> None:
    # A judged response may hold a lone surrogate; JSON can write it, as "\ud800".
    messages = [{"role": "user", "content": "half a pair: \ud800, and \u00e9"}]
    with serving(completion("2")) as service:
        assert ask(service.url, messages=messages) == [ChatAnswer("2", "stop", None)]
    assert service.requests[0].body["messages"] == messages


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://[::1]:none/v1",
        "http://localhost:99999/v1",
        "http://xn--/v1",
        "localhost:8000/v1",
        "ftp://localhost/v1",
        "not an address",
        "http://",
        "",
    ],
)
def test_what_is_no_address_is_refused_by_name(url: str) -> None:
    # Asking again is of no use, so none of these waits half a second for a second attempt.
    with pytest.raises(EndpointError) as raised:
        ask(url, max_attempts=2)
    assert url.rstrip("/") in str(raised.value) and raised.value.refused


def test_an_ipv6_address_is_asked_like_any_other() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    with ExitStack() as stack:
        try:
            service = stack.enter_context(serving(completion("2"), "::1"))
        except OSError as error:
            pytest.skip(f"no IPv6 on this machine: {error}")
        assert ask(service.url) == [ChatAnswer("2", "stop", None)]
    with pytest.raises(EndpointError, match=r"http://\[::1\]:\d+/v1/chat/completions cannot be reached"):
        ask(service.url)


def test_an_endpoint_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one address"):
        ChatEndpoint([])
