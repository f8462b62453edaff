"""Process 1 of a container: takes jobs from the host over standard input, one at a time, and answers on standard output.

A job is one program, or two joined by a channel, of which the second judges the first. Each program has a user id used once. When a job
ends, all that still runs as its users is killed and its folders are removed; where that fails the answer says `clean: false` and the host
throws the container away.
"""

import json
import os
import select
import selectors
import signal
import socket
import sys
import time

import rlvr_remains as remains
import rlvr_wire as wire
import rlvr_zygote as zygote
from rlvr_job import Feed, Job

FIRST_UID = 20_000
START_SECONDS = 60.0
SETTLE_SECONDS = 5.0


def main(settings):
    """Start the zygote, say what works here, then serve until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    runner = None
    try:
        runner = Runner(settings)
        runner.serve()
    except wire.Closed as error:
        print(f"ends: {error}", file=sys.stderr, flush=True)
    finally:
        # The host is gone, or this is a bug: nothing may go on. The end of process 1 ends every process of its container.
        if runner is not None:
            runner.kill_zygote()
        os._exit(0)


class Runner:
    """Serves jobs. `isolate` False is the mode without a container, all under one user."""

    def __init__(self, settings):
        self.isolate = settings["isolate"]
        self.roots = settings["roots"]  # For the program that is judged (or runs alone), for its judge.
        self.idle_seconds = settings["idle_seconds"]
        self.next_uid = FIRST_UID
        self.read = wire.exact_reader(0)
        if self.isolate:
            for root in self.roots:
                os.chmod(root, 0o711)  # Nobody may list it, and the names of the folders in it cannot be guessed.
        else:
            remains.become_subreaper()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.zygote_pid = os.fork()
        if self.zygote_pid == 0:
            self.control.close()
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            zygote.main(theirs, settings["preload"])
        theirs.close()
        ready = self.next_event(START_SECONDS)
        if ready is None:
            raise wire.Closed("the zygote took more than {:g} s to import {}".format(START_SECONDS, ", ".join(settings["preload"])))
        self.zygote_data_bytes = ready["data_bytes"]
        wire.write_all(1, wire.encode_frame({"event": "ready", "findings": remains.findings(self.roots[0])}))

    def serve(self):
        while True:
            # A host that vanished without a word, its network broken, must not leave a container behind for ever.
            if not select.select([0], [], [], self.idle_seconds)[0]:
                raise wire.Closed(f"idle for {self.idle_seconds:g} s")
            header, blobs = wire.read_frame(self.read)
            answer = wire.encode_frame({"event": "pong"}) if header.get("ping") else self.run(Job(header, blobs))
            wire.write_all(1, answer)

    def run(self, job):
        """Run one job and return the answering frame."""
        kills_before, trouble = remains.oom_kills(), None
        try:
            self.start(job)
            self.watch(job)
        except OSError as error:  # Of this runner, not of a program: no room for a folder, no process to be had.
            trouble = repr(error)
        clean = self.settle(job)
        job.drain()
        for program in job.programs:
            if program.folder is not None:
                clean = remains.remove_tree(program.folder) and clean
            trouble = trouble or program.not_started
        return job.answer(clean, trouble, killed_for_memory=remains.oom_kills() > kills_before)

    def start(self, job):
        """Connect the programs' streams and have them forked."""
        # Each program's descriptors in order: standard input, output, error, payload, channel, report. Ours are closed once given away:
        # the end of a program is then the end of its streams.
        channel, report = [None], None
        if len(job.programs) == 2:
            channel = [end.detach() for end in socket.socketpair()]
        if job.report.limit:
            read, report = readable_pipe()
            job.readers[read] = (job.report, None)
        for index, program in enumerate(job.programs):
            theirs = self.connect(job, program)
            theirs += [channel[index], report if program is job.main else None]
            try:
                self.prepare(program, self.roots[index])
                self.fork(index, program, theirs)
            finally:
                for descriptor in theirs:
                    if descriptor is not None:
                        os.close(descriptor)

    def connect(self, job, program):
        """Make the pipes of a program; returns the ends that are its own."""
        theirs = []
        for data in (program.stdin_bytes, wire.encode_frame({}, [program.payload_bytes])):
            read, write = os.pipe()
            job.feeds[write] = Feed(write, data)
            theirs.append(read)
        for position, capture in enumerate((program.stdout, program.stderr)):
            read, write = readable_pipe()
            job.readers[read] = (capture, program)
            theirs.insert(1 + position, write)
        return theirs

    def prepare(self, program, root):
        """Give a program its user and its folder."""
        folder = os.path.join(root, os.urandom(12).hex())
        os.mkdir(folder, 0o700)
        program.folder = folder
        if self.isolate:
            program.uid, self.next_uid = self.next_uid, self.next_uid + 1
            os.chown(folder, program.uid, program.uid)

    def fork(self, key, program, descriptors):
        """Have the zygote fork a program."""
        spec = {
            "key": key,
            "uid": program.uid,
            "folder": program.folder,
            "limits": [*program.spec["limits"], ["RLIMIT_DATA", program.spec["memory_bytes"] + self.zygote_data_bytes]],
            "oom_score_adj": program.spec["oom_score_adj"],
            "descriptors": [descriptor is not None for descriptor in descriptors],
        }
        socket.send_fds(self.control, [json.dumps(spec).encode("ascii")], [each for each in descriptors if each is not None])
        program.asked_for = True

    def watch(self, job):
        """Move data until the main program ended, the deadline passed, a program wrote too much or reported nothing for too long."""
        with selectors.DefaultSelector() as selector:
            for descriptor in job.readers:
                selector.register(descriptor, selectors.EVENT_READ)
            for descriptor, feed in list(job.feeds.items()):
                if feed.write():
                    selector.register(descriptor, selectors.EVENT_WRITE)
                else:
                    job.close_feed(descriptor)
            selector.register(self.control, selectors.EVENT_READ)
            selector.register(0, selectors.EVENT_READ)
            while not job.main.ended:
                remaining = job.remaining()
                if remaining <= 0:
                    for program in job.programs:
                        program.stopped_by = None if program.ended else "timeout"
                    return
                for key, _ in selector.select(remaining):
                    if not self.move(job, selector, key):
                        return

    def move(self, job, selector, key):
        """Handle one ready descriptor; False where the job is to end at once."""
        if key.fileobj is self.control:
            self.take_event(job)
        elif key.fd == 0:
            raise wire.Closed("the host left or spoke in the middle of a job")
        elif key.fd in job.feeds:
            if not job.feeds[key.fd].write():
                selector.unregister(key.fd)
                job.close_feed(key.fd)
        else:
            capture, program = job.readers[key.fd]
            if capture is job.report:
                job.reported_at = time.monotonic()
            if not capture.read_from(key.fd):
                selector.unregister(key.fd)
            elif capture.overflowed and program is not None and program.spec["stop_at_output_limit"]:
                program.stopped_by = "output"
                return False
        return True

    def take_event(self, job):
        """Take the news of one program's end from the zygote."""
        event = self.next_event(0)
        if event is None:
            return
        program = job.programs[event["key"]]
        program.take(event)
        if program is not job.main:
            self.kill(program)  # What it left running would keep the channel open, and the judge waiting.

    def next_event(self, timeout):
        """The zygote's next message, None where there is none in time."""
        if not select.select([self.control], [], [], timeout)[0]:
            return None
        message = self.control.recv(1 << 16)
        if not message:
            raise wire.Closed("the zygote is gone")
        return json.loads(message)

    def kill(self, program):
        """Kill everything a program started, wherever it went."""
        if not self.isolate:
            remains.kill_descendants(os.getpid(), spare=self.zygote_pid)
        elif program.uid is not None:
            # As its user, so that nobody else can be hit. It takes no fork, which a full table of processes would refuse; and this process
            # cannot be hit in turn: the kernel spares process 1 of a container from signals out of the same container.
            os.setresuid(program.uid, program.uid, 0)
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.setresuid(0, 0, 0)

    def settle(self, job):
        """End what still runs and wait until nothing is left; False where something stays."""
        for program in job.programs:
            if program.stopped_by is None and not program.ended:
                program.stopped_by = "ok"  # It waited for calls of a judge that has ended.
        deadline = time.monotonic() + SETTLE_SECONDS
        patience = 0.0
        while time.monotonic() < deadline:
            for program in job.programs:
                self.kill(program)
            while not all(program.ended for program in job.programs):
                event = self.next_event(0.02)
                if event is None:
                    break  # Forked after the kill, perhaps: kill again.
                job.programs[event["key"]].take(event)
            remains.reap(spare=self.zygote_pid)
            if all(program.ended for program in job.programs) and not remains.others(os.getpid(), self.zygote_pid, whole=self.isolate):
                return True
            time.sleep(patience)
            patience = min(0.02, patience + 0.001)
        return False

    def kill_zygote(self):
        try:
            if not self.isolate:
                remains.kill_descendants(os.getpid(), spare=None)
            os.kill(self.zygote_pid, signal.SIGKILL)
        except OSError:
            pass


def readable_pipe():
    """A pipe whose reading end does not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    return read, write
