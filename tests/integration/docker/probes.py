"""Programs that look for what must not be there, and deliberately weak sandboxes in which they find it.

A probe prints `ESCAPED` and what it found. Each is run in the real sandbox, where it must find nothing, and in a weak one, where it must.
"""

from __future__ import annotations

from typing import Any

from sandbox import DockerSandbox

LOOK = """
import os, ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def found(name, what):
    if what not in (None, False, b"", "", [], ()):
        print("ESCAPED", name, repr(what)[:200], flush=True)
def tried(name, function):
    try:
        found(name, function())
    except BaseException:
        pass
"""

PROBES = {
    "network": LOOK + 'tried("interface", lambda: [line for line in open("/proc/net/dev").readlines()[2:] if "lo:" not in line])',
    "write to the image": LOOK
    + """
for folder in ("/", "/etc", "/usr/lib/python3.11", "/var/tmp", "/run/lock", "/dev/shm", "/dev/mqueue", "/root", "/opt"):
    tried(folder, lambda: open(folder + "/left", "w").write("x"))
""",
    "process 1": LOOK
    + 'tried("environ", lambda: open("/proc/1/environ", "rb").read())\ntried("maps", lambda: open("/proc/1/maps").read())',
    "signals": LOOK + 'tried("signal", lambda: os.kill(os.getppid(), 0) is None)\ntried("signal", lambda: os.kill(1, 0) is None)',
    "io_uring": LOOK + 'tried("io_uring", lambda: libc.syscall(425, 8, ctypes.create_string_buffer(256)) >= 0)',
    "keyring": LOOK + 'tried("keyring", lambda: libc.syscall(248, b"user", b"stash", b"x", 1, -3) > 0)',
    "ptrace": LOOK + 'tried("ptrace", lambda: libc.ptrace(0, 0, 0, 0) == 0)',
    "shared memory": LOOK + 'tried("shmget", lambda: libc.shmget(4242, 4096, 0o1777) >= 0)',
    "message queue": LOOK + 'tried("mq", lambda: ctypes.CDLL("librt.so.1").mq_open(b"/stash", 0o102, 0o777, None) >= 0)',
    "user namespace": LOOK + 'tried("unshare", lambda: libc.unshare(0x10000000) == 0)',
    "raw socket": LOOK + 'tried("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).fileno() >= 0)',
    "netlink": LOOK + 'tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).fileno() >= 0)',
    "mount": LOOK + 'os.mkdir("m")\ntried("mount", lambda: libc.mount(b"none", b"m", b"tmpfs", 0, None) == 0)',
    "change root": LOOK + 'tried("chroot", lambda: os.chroot("/") is None)',
    "device": LOOK + 'tried("mknod", lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)) is None)',
    "other folders": LOOK + 'tried("list", lambda: os.listdir("/tmp"))',
    "become root": LOOK + 'tried("setuid", lambda: os.setuid(0) is None and os.getuid() == 0)',
    "oom score": LOOK
    + 'tried("oom", lambda: open("/proc/1/oom_score_adj", "w").write("900") and open("/proc/1/oom_score_adj").read() == "900\\n")',
}

LEAVE_BEHIND = {
    "a file": 'open("/tmp/stash", "w").write("x")\nopen("stash", "w").write("x")',
    "a daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (0, 1, 2):
            os.close(number)
        time.sleep(600)
    os._exit(0)
os.wait()
""",
    "a stopped child": "import os, signal\npid = os.fork()\nif pid == 0:\n    os.kill(os.getpid(), signal.SIGSTOP)\nelse:\n    os._exit(0)",
    "nested folders": 'import os\nfor n in range(2000):\n    os.mkdir("d")\n    os.chdir("d")\nos.chmod(".", 0)',
    "a link to the root": 'import os\nhere = os.getcwd()\nos.chdir("/")\nos.symlink("/", here + "/root")\nos.symlink("/etc", here + "/etc")',
    "an abstract socket": """
import os, socket, time
if os.fork() == 0:
    os.setsid()
    server = socket.socket(socket.AF_UNIX)
    server.bind("\\0stash")
    server.listen()
    time.sleep(600)
time.sleep(0.2)
""",
}

REMAINS = """
import os
me, found = os.getuid(), []
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            owner = [line.split()[1] for line in open(f"/proc/{name}/status") if line.startswith("Uid")][0]
        except OSError:
            continue
        if int(owner) >= 20000 and name != str(os.getpid()):
            found.append(f"process {name} of {owner}")
for folder, folders, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        folders[:] = []
        continue
    for name in folders + files:
        path = os.path.join(folder, name)
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if status.st_uid >= 20000 and not path.startswith(os.getcwd()) or name == "stash":
            found.append(path)
found += [line.split()[-1] for line in open("/proc/net/unix").readlines()[1:] if "@" in line]
print("remains:", found)
"""
"""What the next job can see of the jobs before it."""


class BridgedSandbox(DockerSandbox):
    """With a network."""

    def host_config(self) -> dict[str, Any]:
        return {**super().host_config(), "network_mode": "bridge"}


class OpenSandbox(DockerSandbox):
    """Without the filter of system calls, with a writable image, with shared memory and message queues."""

    def host_config(self) -> dict[str, Any]:
        config = super().host_config()
        del config["tmpfs"]["/dev/mqueue"], config["tmpfs"]["/var/tmp"]
        return {**config, "read_only": False, "ipc_mode": "private", "security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}


def changed(message: bytes, *changes: tuple[str, str]) -> bytes:
    """Replace texts in the runner's own modules."""
    text = message[4:].decode("ascii")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    return len(text).to_bytes(4, "big") + text.encode("ascii")


class RootSandbox(OpenSandbox):
    """Programs run as root, with capabilities."""

    def host_config(self) -> dict[str, Any]:
        config = super().host_config()
        return {
            **config,
            "cap_add": [*config["cap_add"], "SYS_ADMIN", "SYS_CHROOT", "MKNOD", "NET_RAW"],
            "security_opt": ["seccomp=unconfined"],
        }

    def boot_message(self) -> bytes:
        return changed(super().boot_message(), ('if spec[\\"uid\\"] is not None:', "if False:"))


class UntidySandbox(OpenSandbox):
    """Every program as one user, nothing killed, nothing removed."""

    def boot_message(self) -> bytes:
        return changed(
            super().boot_message(),
            ("self.next_uid, self.next_uid + 1", "self.next_uid, self.next_uid"),
            ("os.kill(-1, signal.SIGKILL)", "pass"),
            ("not remains.others(os.getpid(), self.zygote_pid, whole=self.isolate)", "True"),
            ("clean = remains.remove_tree(program.folder) and clean", "pass"),
            ("os.chmod(root, 0o711)", "os.chmod(root, 0o1777)"),
        )


WEAK_FOR = {
    "network": BridgedSandbox,
    "write to the image": OpenSandbox,
    "io_uring": OpenSandbox,
    "keyring": OpenSandbox,
    "ptrace": OpenSandbox,
    "shared memory": OpenSandbox,
    "message queue": OpenSandbox,
    "user namespace": OpenSandbox,
    "netlink": OpenSandbox,
    "process 1": RootSandbox,
    "signals": RootSandbox,
    "raw socket": RootSandbox,
    "mount": RootSandbox,
    "change root": RootSandbox,
    "device": RootSandbox,
    "other folders": RootSandbox,
    "become root": RootSandbox,
    "oom score": RootSandbox,
}
