"""Imports once, then forks: a program starts in a millisecond instead of the tens an interpreter and its imports take.

Every child gets a copy of this process's memory, so nothing of any job may come here: programs and tests go from the runner to the child.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys

import rlvr_child as child


def main(control, preload):
    """Serve fork requests from a SEQPACKET socket until it closes; report each child's end."""
    for name in preload:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"cannot import {name}: {error}", file=sys.stderr, flush=True)
            os._exit(3)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_read, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    keys = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wakeup_read, selectors.EVENT_READ)
    gc.collect()
    gc.disable()
    gc.freeze()  # A collection in a child would touch, and so copy, every page.
    send(control, {"event": "ready", "data_bytes": data_bytes()})
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 8)
                if not message:
                    os._exit(0)
                spawn(control, json.loads(message), descriptors, keys)
            else:
                try:
                    os.read(wakeup_read, 4096)
                except BlockingIOError:
                    pass
        reap(control, keys)


def spawn(control, spec, descriptors, keys):
    """Fork one program; `spec["descriptors"]` says which of 0, 1, 2, … are attached."""
    remaining = iter(descriptors)
    arranged = [next(remaining) if attached else None for attached in spec["descriptors"]]
    try:
        pid = os.fork()
    except OSError as error:
        send(control, {"event": "not started", "key": spec["key"], "error": str(error)})
        pid = None
    if pid == 0:
        signal.set_wakeup_fd(-1)
        child.become(spec, arranged)
    for descriptor in descriptors:
        os.close(descriptor)
    if pid:
        keys[pid] = spec["key"]


def reap(control, keys):
    """Report every child that has ended."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        key = keys.pop(pid, None)
        if key is not None:
            send(control, {"event": "ended", "key": key, "status": status, "max_rss_kib": usage.ru_maxrss})


def data_bytes():
    """This process's private writable memory, which every child starts with."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmData:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def send(control, message):
    control.send(json.dumps(message).encode("ascii"))
