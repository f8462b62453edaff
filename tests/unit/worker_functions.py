"""What the tests make worker processes do."""

from __future__ import annotations

import ctypes
import os
import time


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def misbehave(how: str, argument: int = 0) -> object:
    """Do one of the things a pathological answer makes a library do."""
    if how == "loop":
        while True:
            pass
    if how == "c code":
        return len(str(7 ** (10**9)))  # One operation of the interpreter, which no signal interrupts.
    if how == "memory":
        return len(bytearray(1 << 40))
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "raise":
        raise ValueError("of its own accord")
    if how == "print":
        print("not an answer", flush=True)
        os.write(1, b"nor this\n")
    if how == "sleep":
        time.sleep(argument / 1000)
    return [how, argument, os.getpid()]
