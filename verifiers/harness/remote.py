"""What tests hold in place of the solution's functions, classes and objects, and the connection they speak over."""

import builtins
import select
import time

import rlvr_values as values


class SolutionGone(BaseException):
    """No more answers will come. No `except Exception` of a test may catch it."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind  # "timeout" or "lost".


class SolutionError(Exception):
    """The solution raised an exception of a type of its own."""


class Connection:
    """The examiner's end of the socket. Answers may be forged, but are plain data from one who has not seen what is expected."""

    def __init__(self, connection):
        self.connection = connection
        self.deadline = None
        self.gone = None
        self.count = 0
        self.num_errors = 0
        self.exceptions = {}
        self.buffer = bytearray()

    def receive(self):
        """The next message, within the deadline."""
        try:
            return values.receive(self.read)
        except values.ProtocolError as error:
            self.lose("lost", f"it sent what no solution sends: {error}")

    def read(self, count):
        while len(self.buffer) < count:
            remaining = self.deadline - time.monotonic()
            if remaining <= 0 or not select.select([self.connection], [], [], remaining)[0]:
                self.lose("timeout", "no answer in time")
            try:
                data = self.connection.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                self.lose("lost", "the program ended")
            self.buffer += data
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def lose(self, kind, message):
        self.gone = self.gone or SolutionGone(kind, message)
        raise self.gone

    def request(self, operation, target, *arguments, **named):
        """Have the solution do something; returns the value or raises what it raised."""
        if self.gone is not None:
            raise self.gone
        self.count += 1
        encoded = [values.encode(each, self.keep) for each in (target, *arguments)]
        message = {"id": self.count, "op": operation, "args": encoded, "kwargs": {k: values.encode(v, self.keep) for k, v in named.items()}}
        try:
            self.send(message)
            answer = self.receive()
            if answer.get("id") != self.count:
                self.lose("lost", "it answered a call that was not made")
            if "error" in answer:
                self.num_errors += 1
                raise self.exception(answer["error"], operation)
            for mine, theirs in zip(arguments, answer.get("arguments") or (), strict=False):
                write_back(mine, values.decode(theirs, self.held))
            return values.decode(answer.get("value"), self.held)
        except (values.ProtocolError, RecursionError) as error:
            self.lose("lost", f"it sent what no solution sends: {error}")

    def send(self, message):
        """Send, giving up at the deadline: a solution that does not read fills the socket."""
        self.connection.settimeout(max(0.001, self.deadline - time.monotonic()))
        try:
            values.send(self.connection, message)
        except TimeoutError:
            self.lose("timeout", "it does not read its calls")
        except OSError:
            self.lose("lost", "the program ended")

    def exception(self, described, operation):
        """An exception for what the solution raised: a built-in one of that name, or one the tests know."""
        try:
            name, text = str(described[0]), str(described[1])
        except (TypeError, IndexError, KeyError):
            self.lose("lost", "it sent what no solution sends")
        kind = self.exceptions.get(name) or getattr(builtins, name, None)
        if operation == "next" and name == "StopIteration":
            return StopIteration()
        # From a call it would end the test's own loop over `map(candidate, …)` and look like nothing left to check.
        if name in ("StopIteration", "StopAsyncIteration") or not (isinstance(kind, type) and issubclass(kind, Exception)):
            return SolutionError(f"{name}: {text}")
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and the like want more than a text.
            return SolutionError(f"{name}: {text}")

    def keep(self, value, kind):
        """The tests' side of a handle: only what came from the solution can go back by reference."""
        handle = getattr(value, "_rlvr_handle", None)
        if handle is None:
            raise TypeError(f"a test passes a {type(value).__name__} to the solution: only plain data can cross")
        return handle

    def held(self, handle):
        try:
            number, kind, is_callable = handle
            number = int(number)
        except (TypeError, ValueError):
            raise values.ProtocolError("a handle that is none") from None
        return (
            RemoteIterator(self, number)
            if kind == "iterator"
            else RemoteCallable(self, number)
            if is_callable
            else RemoteObject(self, number)
        )

    def exception_class(self, name, base):
        """A class for tests to name in `except` and `pytest.raises`."""
        parent = getattr(builtins, str(base), Exception)
        parent = parent if isinstance(parent, type) and issubclass(parent, Exception) else Exception
        return self.exceptions.setdefault(name, type(name, (parent,), {"_rlvr_handle": name}))


class RemoteObject:
    """An object of the solution's own class. Equal to no plain value, whatever it says; true, as objects are."""

    def __init__(self, connection, handle):
        object.__setattr__(self, "_rlvr_connection", connection)
        object.__setattr__(self, "_rlvr_handle", handle)

    def __getattr__(self, name):
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self._rlvr_connection.request("getattr", self, name)

    def __setattr__(self, name, value):
        self._rlvr_connection.request("setattr", self, name, value)

    def __len__(self):
        return plain(self._rlvr_connection.request("len", self), int)

    def __bool__(self):
        return True

    def __getitem__(self, key):
        return self._rlvr_connection.request("getitem", self, key)

    def __setitem__(self, key, value):
        self._rlvr_connection.request("setitem", self, key, value)

    def __iter__(self):
        return self._rlvr_connection.request("iter", self)

    def __enter__(self):
        return self._rlvr_connection.request("call", self._rlvr_connection.request("getattr", self, "__enter__"))

    def __exit__(self, kind, error, stack):
        self._rlvr_connection.request("call", self._rlvr_connection.request("getattr", self, "__exit__"), None, None, None)

    def __str__(self):
        return plain(self._rlvr_connection.request("text", self), str)

    __repr__ = __str__

    def __eq__(self, other):
        # Of two objects of its own only the solution can tell whether they are equal; docs/sandbox.md says what follows from that.
        if not isinstance(other, RemoteObject):
            return False
        return self._rlvr_handle == other._rlvr_handle or self._rlvr_connection.request("equal", self, other) is True

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(self._rlvr_handle)


class RemoteCallable(RemoteObject):
    """A function or a class of the solution."""

    def __call__(self, *arguments, **named):
        return self._rlvr_connection.request("call", self, *arguments, **named)

    def __instancecheck__(self, value):
        return isinstance(value, RemoteObject) and self._rlvr_connection.request("isinstance", value, self) is True


class RemoteIterator(RemoteObject):
    """A generator or another iterator of the solution: asked for one value at a time, so it may be endless."""

    def __iter__(self):
        return self

    def __next__(self):
        return self._rlvr_connection.request("next", self)


def plain(value, kind):
    """Insist on a plain value: `__len__` and `__str__` must return one."""
    if type(value) is not kind:
        raise TypeError(f"not {kind.__name__}")
    return value


def write_back(mine, theirs):
    """Make a mutable argument what the solution made of its copy."""
    if type(mine) is not type(theirs):
        return
    if isinstance(mine, (list, bytearray)):
        mine[:] = theirs
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(theirs)
