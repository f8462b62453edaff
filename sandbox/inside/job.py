"""One job as the runner sees it: its programs, the streams that are read and fed while they run, and what the answer says of them."""

import os
import signal
import time

import rlvr_wire as wire
from rlvr_child import MEMORY_EXIT

PIPE_BYTES = 1 << 16


class Capture:
    """The head of a stream. What comes after `limit` bytes is counted and thrown away."""

    def __init__(self, limit):
        self.limit = limit
        self.parts = []
        self.size = 0

    @property
    def overflowed(self):
        return self.size > self.limit

    def read_from(self, descriptor):
        """Take what is there now; False at the end of the stream."""
        try:
            data = os.read(descriptor, PIPE_BYTES)
        except BlockingIOError:
            return True
        if self.size < self.limit:
            self.parts.append(data[: self.limit - self.size])
        self.size += len(data)
        return bool(data)

    def value(self):
        return b"".join(self.parts)


class Feed:
    """Bytes on their way into a pipe that may be full."""

    def __init__(self, descriptor, data):
        self.descriptor = descriptor
        self.data = memoryview(data)
        os.set_blocking(descriptor, False)

    def write(self):
        """Write what fits; False once there is no more to write or nobody to read it."""
        try:
            while self.data:
                self.data = self.data[os.write(self.descriptor, self.data) :]
        except BlockingIOError:
            return True
        except OSError:  # The reader closed its end, as it may.
            pass
        return False


class Program:
    """One program of a job: what it was given, what it wrote, how it ended."""

    def __init__(self, spec, stdin, payload):
        self.spec = spec
        self.stdin_bytes = stdin
        self.payload_bytes = payload
        self.uid = None
        self.folder = None
        self.asked_for = False  # Of the zygote.
        self.status = None
        self.not_started = None
        self.stopped_by = None
        self.max_rss_kib = 0
        self.ended_at = None
        self.stdout = Capture(spec["output_bytes"])
        self.stderr = Capture(spec["output_bytes"])

    @property
    def ended(self):
        return not self.asked_for or self.status is not None or self.not_started is not None

    def take(self, event):
        """Note how the zygote says this program ended."""
        self.ended_at = time.monotonic()
        self.status, self.not_started, self.max_rss_kib = event.get("status"), event.get("error"), event.get("max_rss_kib", 0)

    def describe(self, started_at, killed_for_memory):
        """What the answer says: status, exit code, seconds, peak memory."""
        status, code = "ok", None
        if self.stopped_by is not None:
            status = self.stopped_by
        elif self.status is None:
            status = "killed"
        elif os.WIFEXITED(self.status):
            code = os.WEXITSTATUS(self.status)
            status = "memory" if code == MEMORY_EXIT else "ok" if code == 0 else "error"
        elif os.WTERMSIG(self.status) == signal.SIGXCPU:
            status = "timeout"
        else:
            status = "killed"
        if status in ("error", "killed") and killed_for_memory:
            status = "memory"
        return {
            "status": status,
            "exit_code": code,
            "wall_seconds": (self.ended_at or time.monotonic()) - started_at,
            "peak_memory_mib": self.max_rss_kib / 1024,
            "output_cut": self.stdout.overflowed or self.stderr.overflowed,
        }


class Job:
    """The programs of a job and every descriptor that the runner holds for it."""

    def __init__(self, header, blobs):
        self.id = header["id"]
        self.programs = [Program(spec, blobs[2 * index], blobs[2 * index + 1]) for index, spec in enumerate(header["programs"])]
        self.report = Capture(header["report_bytes"])
        self.quiet_seconds = header["quiet_seconds"]
        self.started_at = time.monotonic()
        self.deadline = self.started_at + header["wall_seconds"]
        self.reported_at = self.started_at
        self.readers = {}  # Descriptor: (capture, program).
        self.feeds = {}  # Descriptor: feed.

    @property
    def main(self):
        """The program whose end is the job's: the only one, or the second, which judges."""
        return self.programs[-1]

    def remaining(self):
        """Seconds until the job's time is over, or the time in which it must report something."""
        deadline = self.deadline if self.quiet_seconds is None else min(self.deadline, self.reported_at + self.quiet_seconds)
        return deadline - time.monotonic()

    def close_feed(self, descriptor):
        del self.feeds[descriptor]
        os.close(descriptor)

    def drain(self):
        """Take what was written before everything ended, and let go of the streams."""
        for descriptor, (capture, _) in self.readers.items():
            while capture.size <= capture.limit:
                size = capture.size
                if not capture.read_from(descriptor) or capture.size == size:
                    break
            os.close(descriptor)
        self.readers = {}
        for descriptor in list(self.feeds):
            self.close_feed(descriptor)

    def answer(self, clean, trouble, killed_for_memory):
        """The frame that tells the host how it went."""
        header = {
            "id": self.id,
            "clean": clean,
            "trouble": trouble,
            "programs": [program.describe(self.started_at, killed_for_memory) for program in self.programs],
        }
        streams = [stream.value() for program in self.programs for stream in (program.stdout, program.stderr)]
        return wire.encode_frame(header, [*streams, self.report.value()])
