"""Frames: a 4-byte length, a JSON header of that length whose `sizes` tells the lengths of the blobs that follow, the blobs."""

import json
import os

MAX_HEADER_BYTES = 16 << 20


class Closed(Exception):
    """The other side is gone."""


def encode_frame(header, blobs=()):
    """Return one frame as bytes; `sizes` is added to the header."""
    head = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode("ascii")
    return b"".join([len(head).to_bytes(4, "big"), head, *blobs])


def read_frame(read):
    """Return (header, blobs); `read(count)` returns exactly that many bytes or raises Closed."""
    size = int.from_bytes(read(4), "big")
    if size > MAX_HEADER_BYTES:
        raise Closed(f"a header of {size} bytes")
    header = json.loads(read(size))
    return header, [read(count) for count in header["sizes"]]


def exact_reader(descriptor):
    """Return a `read` for `read_frame` over a blocking file descriptor."""

    def read(count):
        parts = []
        while count:
            part = os.read(descriptor, min(count, 1 << 20))
            if not part:
                raise Closed("end of file")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    return read


def write_all(descriptor, data):
    """Write all bytes to a blocking file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
