"""Ties the ranks of a run together: if one fails or is killed, the others end within seconds, and the main rank says why.

A rank that waits in a collective cannot be told anything and would wait for a dead one until the collective's deadline. So each keeps one
connection to the main rank, on which nothing is said but how it ended; a connection that closes without a word is a rank that was killed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rlvr.errors import RlvrError
from verifiers.errors import RegistryError, VerifierError

CONNECT_SECONDS = 60.0
FAREWELL_SECONDS = 5.0
"""How long a rank that failed waits for the main rank to take its last words."""
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that is lost says nothing; its connections are given up after 20 s."""
ECHO_SECONDS = 1.0
"""How long one waits for another to say what it knows better."""
LOST = "was killed, or its machine was lost"


@dataclass(frozen=True, slots=True)
class _Address:
    """Where the main rank listens; who connects shows the `token`."""

    host: str
    port: int
    token: str


class Lifeline:
    """One rank's side of the ties."""

    @staticmethod
    @contextmanager
    def tie(rank: int, size: int, exchange: Callable[[Any], list[Any]]) -> Iterator[None]:
        """Hold the ties while the block runs; `exchange` gives each rank what every rank said. An error that leaves the block is passed on
        to the main rank before it goes its way."""
        if size == 1:
            yield
            return
        line = _Main(size) if rank == 0 else _Other(rank)
        address = exchange(line.address if isinstance(line, _Main) else None)[0]
        line.connect(address)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, (RlvrError, VerifierError, RegistryError, KeyboardInterrupt)):
                # Often the echo of another rank's death, in a collective's words; the ties tell of the death itself.
                time.sleep(ECHO_SECONDS)
                traceback.print_exception(error)
            line.failed(str(error).strip() or type(error).__name__)
            raise
        line.done()


class _Main:
    """Listens to all the others and tells them when one has gone."""

    def __init__(self, size: int) -> None:
        self._server = socket.create_server(("", 0), family=socket.AF_INET)
        self._size = size
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._done: set[int] = set()
        self._all_done = threading.Event()
        self._ended = False
        self.address = _Address(os.environ.get("MASTER_ADDR", "127.0.0.1"), self._server.getsockname()[1], secrets.token_hex(16))

    def connect(self, address: _Address) -> None:
        self._server.settimeout(CONNECT_SECONDS)
        while len(self._connections) < self._size - 1:
            connection, _ = self._server.accept()
            connection.settimeout(CONNECT_SECONDS)
            greeting = _read(connection.makefile("r"))
            if greeting is None or greeting.get("token") != address.token:
                connection.close()
                continue
            connection.settimeout(None)
            _keep_alive(connection)
            self._connections[greeting["rank"]] = connection
        self._server.close()
        for rank, connection in self._connections.items():
            threading.Thread(target=self._listen, args=(rank, connection), name=f"lifeline of rank {rank}", daemon=True).start()

    def _listen(self, rank: int, connection: socket.socket) -> None:
        said = _read(connection.makefile("r"))
        if said is not None and said.get("done"):
            with self._lock:
                self._done.add(rank)
                if len(self._done) == self._size - 1:
                    self._all_done.set()
            return
        with self._lock:
            if self._ended:
                return
            self._ended = True
        reason = f"rank {rank} {LOST}" if said is None else f"rank {rank}: {said['failed']}"
        self._tell({"failed": reason})
        _end(reason)

    def _tell(self, words: dict[str, Any]) -> None:
        for connection in self._connections.values():
            _write(connection, words)

    def failed(self, words: str) -> None:
        with self._lock:
            if self._ended:
                threading.Event().wait(FAREWELL_SECONDS)  # Another failed first; its listener ends this process.
            self._ended = True
        self._tell({"failed": f"rank 0: {words}"})

    def done(self) -> None:
        self._all_done.wait()
        with self._lock:
            self._ended = True
        self._tell({"done": True})


class _Other:
    """Tells the main rank how this one ends, and ends with it."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._ended = threading.Event()

    def connect(self, address: _Address) -> None:
        self._connection = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
        self._connection.settimeout(None)
        _keep_alive(self._connection)
        _write(self._connection, {"rank": self._rank, "token": address.token})
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    def _listen(self) -> None:
        said = _read(self._connection.makefile("r"))
        if said is not None and said.get("done"):
            self._ended.set()
            return
        if said is None:
            _end(f"rank 0 {LOST}; rank {self._rank} ends with it")
        # The main rank says it to the person; a launcher that sees this one end may not leave it the time.
        time.sleep(ECHO_SECONDS)
        _end(None)

    def failed(self, words: str) -> None:
        _write(self._connection, {"failed": words})
        self._ended.wait(FAREWELL_SECONDS)  # The main rank ends this process once it has taken the words.

    def done(self) -> None:
        _write(self._connection, {"done": True})
        self._ended.wait()


def _end(reason: str | None) -> None:
    """Leave at once: the main thread may wait for a rank that is gone. Nothing is lost that a kill would not lose."""
    if reason is not None:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{show_cursor}\nerror: {reason}; the other ranks were ended. Go on with --resume\n")
            sys.stderr.flush()
    os._exit(1)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _read(stream: Any) -> dict[str, Any] | None:
    """Return the next line; None where the connection ended."""
    try:
        line = stream.readline()
        return json.loads(line) if line else None
    except (OSError, ValueError):
        return None


def _write(connection: socket.socket, words: dict[str, Any]) -> None:
    with suppress(OSError):
        connection.sendall((json.dumps(words) + "\n").encode())
