"""The process that runs the program to be judged: executes it once, then makes the calls it is asked for.

Everything here is in the program's hands once it runs. It knows arguments, never tests or expected values, so lying gains nothing.
"""

import builtins
import itertools
import json
import os
import socket
import sys

import rlvr_child as child
import rlvr_values as values

MAX_MESSAGE = 500
MAX_ITEMS = 100_000


def serve(argument, channel, report):
    """Serve `{"sources": [[file name, text, names to forget], …], "imports": text}` over the socket `channel`."""
    connection = socket.socket(fileno=channel)
    module, problem = start(json.loads(argument))
    if problem is not None:
        values.send(connection, problem)
        return
    server = Server(module, connection)
    values.send(connection, {"event": "ready", "names": server.names()})
    server.serve()


def answer(argument, channel, report):
    """Make the calls of `{"sources", "imports", "calls": [[name, arguments, named arguments], …]}`; write each result as a line."""
    given = json.loads(argument)
    module, problem = start(given)
    tell(report, problem or {"event": "ready"})
    if problem is not None:
        return
    for name, positional, named in given["calls"]:
        server = Server(module, None)
        try:
            function = server.named(name)
            arguments = [values.decode(each, server.held) for each in positional]
            value = function(*arguments, **{key: values.decode(each, server.held) for key, each in named.items()})
            fact = {"value": values.encode(value, server.drain)}
        except BaseException as error:
            fact = {"error": describe(error)}
        try:
            tell(report, fact)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            tell(report, {"error": describe(error)})
    tell(report, {"event": "done"})


def tell(report, fact):
    """Write one fact as a line."""
    data = (json.dumps(fact) + "\n").encode("ascii")
    while data:
        data = data[os.write(report, data) :]


def start(given):
    """Execute the program's source texts; returns its module and what to tell where that failed."""
    module = child.new_module("solution", "solution.py")
    for name, text, forgotten in given["sources"]:
        problem = load(module, name, text)
        if problem is not None and not forgotten:
            return module, problem
        for each in forgotten:
            module.__dict__.pop(each, None)
    if given["imports"]:
        try:
            exec(given["imports"], scratch := {})
            for name, value in scratch.items():
                module.__dict__.setdefault(name, value)
        except Exception:
            pass  # What the tests import may be missing here; the solution then misses it if it needs it.
    return module, None


def load(module, name, text):
    """Execute source text in the module; returns what to tell where that fails."""
    try:
        code = child.compile_source(text, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"event": "failed", "stage": "compile", "error": describe(error)}
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        return {"event": "failed", "stage": "import", "error": describe(error)}
    return None


def describe(error):
    """Type and text of an exception, whose own methods may do anything."""
    try:
        return [type(error).__name__, str(error)[:MAX_MESSAGE]]
    except BaseException:
        return [type(error).__name__, "(no message)"]


class Server:
    """Answers calls about one module and about the objects it handed out."""

    def __init__(self, module, connection):
        self.module = module
        self.connection = connection
        self.objects = {}
        self.handles = itertools.count(1)

    def names(self):
        """What the module defines, by kind: `exception` carries the name of its nearest built-in base."""
        found = {}
        for name, value in list(self.module.__dict__.items()):
            if name.startswith("__"):
                continue
            if isinstance(value, type) and issubclass(value, BaseException):
                base = next((each.__name__ for each in value.__mro__ if getattr(builtins, each.__name__, None) is each), "Exception")
                found[name] = ["exception", base]
            elif callable(value):
                found[name] = ["callable", getattr(value, "__module__", None) == "solution"]
            elif type(value) is not type(sys):
                found[name] = ["value", True]
        return found

    def keep(self, value, kind):
        handle = next(self.handles)
        self.objects[handle] = value
        return [handle, kind, callable(value)]

    def drain(self, value, kind):
        """What stands for an object where nobody will ask for more: an iterator gives what it has, up to a point."""
        if kind != "iterator":
            return None
        return [values.encode(each, self.drain) for each in itertools.islice(value, MAX_ITEMS)]

    def held(self, handle):
        """A handle that came back: the object itself; a name: what the module has under it."""
        if isinstance(handle, str):
            return self.named(handle)
        return self.objects[handle]

    def named(self, name):
        """What the module defines under a name; a bare method of `class Solution` is found as well."""
        value = self.module
        try:
            for index, part in enumerate(name.split(".")):
                if part.endswith("()"):
                    value = getattr(value, part[:-2])()
                else:
                    value = getattr(value, part)
                    if index == 0 and "." in name and isinstance(value, type):
                        value = value()
            return value
        except AttributeError:
            solution = self.module.__dict__.get("Solution")
            if isinstance(solution, type) and "." not in name and hasattr(solution, name):
                return getattr(solution(), name)
            raise NameError(f"the program defines no {name}") from None

    def serve(self):
        reader = self.connection.makefile("rb", buffering=1 << 16)

        def read(count):
            data = reader.read(count)
            if len(data) < count:
                os._exit(0)  # The examiner has seen enough.
            return data

        while True:
            request = values.receive(read)
            try:
                answer = self.answer(request)
            except BaseException as error:
                answer = {"error": describe(error)}
            try:
                values.send(self.connection, {**answer, "id": request["id"]})
            except (values.ProtocolError, ValueError, RecursionError, MemoryError) as error:
                values.send(self.connection, {"id": request["id"], "error": describe(error)})

    def answer(self, request):
        """Perform one operation and return its encoded value."""
        operation = request["op"]
        arguments = [values.decode(each, self.held) for each in request["args"]]
        if operation == "call":
            return self.call(request, arguments)
        target = arguments[0]
        if operation == "value":
            value = target
        elif operation == "getattr":
            value = getattr(target, arguments[1])
        elif operation == "setattr":
            value = setattr(target, arguments[1], arguments[2])
        elif operation == "next":
            value = next(target)
        elif operation == "iter":
            value = iter(target)
        elif operation == "len":
            value = len(target)
        elif operation == "getitem":
            value = target[arguments[1]]
        elif operation == "setitem":
            target[arguments[1]] = arguments[2]
            value = None
        elif operation == "text":
            value = str(target)
        elif operation == "equal":
            value = bool(target == arguments[1])
        elif operation == "isinstance":
            value = isinstance(target, arguments[1])
        else:
            raise ValueError(operation)
        return {"value": values.encode(value, self.keep)}

    def call(self, request, arguments):
        """Call a function. One that returns None may have worked on its arguments in place: they go back with the answer."""
        function, positional = arguments[0], arguments[1:]
        named = {name: values.decode(each, self.held) for name, each in request["kwargs"].items()}
        value = function(*positional, **named)
        answer = {"value": values.encode(value, self.keep)}
        if value is None:
            after = [values.encode(each, self.keep) for each in positional]
            if after != request["args"][1:]:
                answer["arguments"] = after
        return answer
