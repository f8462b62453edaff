"""Plain data as JSON, with tags for what JSON lacks. What is not plain data travels as a handle: a number that stands for an object.

Decoding builds built-in values only. A solution cannot send an object whose `__eq__` lies: there is no way to say one.
"""

import array
import base64
import collections
import datetime
import decimal
import fractions
import json
import sys

MAX_FRAME_BYTES = 32 << 20
BIG = 1 << 62


class ProtocolError(Exception):
    """Not what the other side may send."""


def encode(value, keep):
    """Return `value` for `json.dumps`; `keep(object, kind)` returns the handle of what is not plain data."""
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -BIG < value < BIG else {"k": "int", "v": hex(value)}  # In linear time, unlike decimal.
    if kind is list:
        return [encode(each, keep) for each in value]
    if kind is tuple:
        return {"k": "tuple", "v": [encode(each, keep) for each in value]}
    if kind is dict:
        return {"k": "dict", "v": [[encode(key, keep), encode(each, keep)] for key, each in value.items()]}
    return _encode_rarer(value, kind, keep)


def _encode_rarer(value, kind, keep):
    for tag, known in _SEQUENCES.items():
        if kind is known:
            return {"k": tag, "v": [encode(each, keep) for each in value]}
    if kind in (collections.OrderedDict, collections.Counter, collections.defaultdict):
        return {"k": kind.__name__ if kind is not collections.defaultdict else "dict", "v": encode(dict(value), keep)["v"]}
    if kind in (bytes, bytearray):
        return {"k": kind.__name__, "v": base64.b64encode(value).decode("ascii")}
    if kind is complex:
        return {"k": "complex", "v": [value.real, value.imag]}
    if kind in (decimal.Decimal, fractions.Fraction):
        return {"k": kind.__name__, "v": str(value)}
    if kind is range:
        return {"k": "range", "v": [encode(each, keep) for each in (value.start, value.stop, value.step)]}
    if kind in (datetime.datetime, datetime.date, datetime.time):
        return {"k": kind.__name__, "v": value.isoformat()}
    if kind is datetime.timedelta:
        return {"k": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
    if kind is array.array:
        return [encode(each, keep) for each in value]
    if kind in (type({}.keys()), type({}.values()), type({}.items())):
        return {"k": kind.__name__, "v": [encode(each, keep) for each in value]}
    if kind is type and value in _TYPES.values():
        return {"k": "type", "v": value.__name__}
    if value is NotImplemented or value is Ellipsis:
        return {"k": "singleton", "v": repr(value)}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return encode(value.item(), keep)
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in "biufcUS":
        return {"k": "ndarray", "v": [str(value.dtype), encode(value.tolist(), keep)]}
    # Values of subclasses travel as what they are underneath, read by the base class: an overridden method has no say.
    for base in (bool, int, float, str):
        if isinstance(value, base):
            return encode(_plain(base, value), keep)
    for base in (tuple, list, set, frozenset):
        if isinstance(value, base):
            return encode(base(base.__iter__(value)), keep)
    if isinstance(value, dict):
        return encode(dict(dict.items(value)), keep)
    return {"k": "handle", "v": keep(value, "iterator" if hasattr(kind, "__next__") else "object")}


def _plain(base, value):
    return {int: int.__int__, float: float.__float__, str: str.__str__}[base](value) if base is not bool else bool(value)


def decode(value, held):
    """Return the value of what `json.loads` gave; `held(handle)` returns what stands for an object of the other side.

    Raises: ProtocolError: it is not what `encode` makes.
    """
    if isinstance(value, list):
        return [decode(each, held) for each in value]
    if not isinstance(value, dict):
        return value
    try:
        tag, inner = value["k"], value["v"]
        if tag == "tuple":
            return tuple([decode(each, held) for each in inner])
        if tag in ("dict", "OrderedDict", "Counter"):
            pairs = [(decode(key, held), decode(each, held)) for key, each in inner]
            return dict(pairs) if tag == "dict" else getattr(collections, tag)(dict(pairs))
        if tag in _SEQUENCES:
            return _SEQUENCES[tag](decode(each, held) for each in inner)
        if tag == "int":
            return int(inner, 16)
        if tag == "handle":
            return held(inner)
        return _DECODERS[tag](inner, held)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, ImportError) as error:
        raise ProtocolError(f"unreadable value: {error}") from error


def _singleton(name, held):
    return {"NotImplemented": NotImplemented, "Ellipsis": Ellipsis}[name]


def _ndarray(inner, held):
    import numpy

    kind, data = inner
    if numpy.dtype(kind).kind not in "biufcUS":
        raise ProtocolError(f"an array of {kind}")
    return numpy.array(decode(data, held), dtype=kind)


_SEQUENCES = {"set": set, "frozenset": frozenset, "deque": collections.deque}
_TYPES = {each.__name__: each for each in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))}
_DECODERS = {
    "bytes": lambda inner, held: base64.b64decode(inner),
    "bytearray": lambda inner, held: bytearray(base64.b64decode(inner)),
    "complex": lambda inner, held: complex(float(inner[0]), float(inner[1])),
    "Decimal": lambda inner, held: decimal.Decimal(inner),
    "Fraction": lambda inner, held: fractions.Fraction(*map(int, inner.split("/"))),  # Not of `1e999999999`.
    "range": lambda inner, held: range(*(decode(each, held) for each in inner)),
    "datetime": lambda inner, held: datetime.datetime.fromisoformat(inner),
    "date": lambda inner, held: datetime.date.fromisoformat(inner),
    "time": lambda inner, held: datetime.time.fromisoformat(inner),
    "timedelta": lambda inner, held: datetime.timedelta(*inner),
    "dict_keys": lambda inner, held: dict.fromkeys([decode(each, held) for each in inner]).keys(),
    "dict_values": lambda inner, held: dict(enumerate([decode(each, held) for each in inner])).values(),
    "dict_items": lambda inner, held: dict([decode(each, held) for each in inner]).items(),
    "type": lambda inner, held: _TYPES[inner],
    "singleton": _singleton,
    "ndarray": _ndarray,
}


def send(connection, message):
    """Write one message to a socket.

    Raises: ProtocolError: it is larger than MAX_FRAME_BYTES.
    """
    data = json.dumps(message).encode("ascii")
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a value of {len(data) >> 20} MB")
    connection.sendall(len(data).to_bytes(4, "big") + data)


def receive(read):
    """Read one message; `read(count)` returns that many bytes.

    Raises: ProtocolError: too large, or no JSON object.
    """
    size = int.from_bytes(read(4), "big")
    if size > MAX_FRAME_BYTES:
        raise ProtocolError(f"a value of {size >> 20} MB")
    try:
        message = json.loads(read(size))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"unreadable message: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError("a message that is no object")
    return message
