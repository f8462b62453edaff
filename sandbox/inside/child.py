"""What a forked process does before and after the program's own code: limits, another user, its own folder, and how it ends."""

import atexit
import gc
import importlib
import json
import linecache
import os
import resource
import signal
import sys
import threading
import traceback
import types

import rlvr_wire as wire

PAYLOAD, CHANNEL, REPORT = 3, 4, 5  # After standard input, output and error. Numbers where nothing is attached stay closed.
MEMORY_EXIT = 117
"""The exit status of a program that ran into its memory limit and noticed."""


def become(spec, descriptors):
    """Turn this fresh fork into the program that `spec` describes, run it and exit. Never returns."""
    status = 1
    try:
        arrange_descriptors(descriptors)
        restrict(spec)
        payload = json.loads(wire.read_frame(wire.exact_reader(PAYLOAD))[1][0])
        os.close(PAYLOAD)
        for name, text in payload["files"].items():
            write_file(name, text)
        gc.enable()
        status = run_script(payload) if "source" in payload else run_function(payload)
    except SystemExit as error:
        status = exit_status(error)
    except MemoryError:
        status = MEMORY_EXIT
    except BaseException:
        traceback.print_exc()
    finally:
        leave(status)


def arrange_descriptors(descriptors):
    """Put the given descriptors at 0, 1, 2, … (None: leave closed) and close all others."""
    high = [None if each is None else os.dup2(each, 100 + index, inheritable=True) for index, each in enumerate(descriptors)]
    os.closerange(0, 100)
    for index, each in enumerate(high):
        if each is not None:
            os.dup2(each, index, inheritable=index <= 2)
    os.closerange(100, 4096)


def restrict(spec):
    """Give up everything the program must not have: first what needs privilege, then the privilege."""
    os.setsid()
    for name, value in spec["limits"]:
        kind = getattr(resource, name, None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(spec["oom_score_adj"]))  # When memory runs out the program goes first, never the runner.
    except OSError:
        pass
    os.umask(0o077)
    os.chdir(spec["folder"])
    if spec["uid"] is not None:
        os.setgroups([])
        os.setresgid(spec["uid"], spec["uid"], spec["uid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    os.environ.clear()
    os.environ.update(
        {
            "HOME": spec["folder"],
            "TMPDIR": spec["folder"],
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def write_file(name, text):
    """Write a file below the working folder."""
    path = os.path.normpath(name)
    if os.path.isabs(path) or path.startswith(".."):
        raise ValueError(f"the file {name!r} is not below the working folder")
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


def run_script(payload):
    """Run source text as `__main__`, as `python main.py` would."""
    module = new_module("__main__", "main.py")
    sys.argv = ["main.py"]
    sys.path.insert(0, os.getcwd())
    return execute(payload["source"], module)


def new_module(name, file):
    """Return an empty module, entered in `sys.modules`."""
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    return module


def execute(source, module):
    """Compile and run source in a module; an error is printed without the frames of this file. Returns an exit status."""
    try:
        exec(compile_source(source, module.__file__), module.__dict__)
    except SystemExit as error:
        return exit_status(error)
    except BaseException as error:
        stack = error.__traceback__
        while stack is not None and stack.tb_frame.f_code.co_filename == __file__:
            stack = stack.tb_next
        traceback.print_exception(type(error), error, stack)
        return MEMORY_EXIT if isinstance(error, MemoryError) else 1
    return 0


def compile_source(source, name):
    """Compile program text: a byte-order mark is legal, and text that carries raw bytes is read by its own coding line."""
    if source.startswith("\ufeff"):
        source = source[1:]
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    if any("\udc80" <= character <= "\udcff" for character in source):
        # Bytes that were no UTF-8 came as lone surrogates.
        return compile(source.encode("utf-8", "surrogateescape"), name, "exec", dont_inherit=True)
    return compile(source, name, "exec", dont_inherit=True)


def run_function(payload):
    """Call `module:function(argument, channel, report)`; both descriptors may be closed ones."""
    module, _, function = payload["function"].partition(":")
    getattr(importlib.import_module(module), function)(payload["argument"], CHANNEL, REPORT)
    return 0


def exit_status(error):
    """What `sys.exit(…)` means as a number."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def leave(status):
    """End as Python ends: wait for threads, run exit functions, flush; but without tearing the interpreter down."""
    try:
        try:
            threading._shutdown()
            atexit._run_exitfuncs()
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (AttributeError, OSError, ValueError):
                    status = status or 1
    except BaseException:
        status = status or 1
    finally:
        os._exit(status)
