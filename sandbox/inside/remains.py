"""What a job may leave behind and how it goes: processes, folders; and what this container's limits are."""

import ctypes
import os
import signal
import stat
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def reap(spare):
    """Take the exit statuses of orphans, whose parent this process became."""
    try:
        while True:
            done = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if done is None or done.si_pid == spare:
                return
            os.waitpid(done.si_pid, 0)
    except ChildProcessError:
        pass


def others(runner, zygote, whole):
    """Process ids besides the two that belong here: of the whole container, or below the runner."""
    if not whole:
        return [pid for pid in descendants(runner) if pid != zygote]
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in (runner, zygote)]


def descendants(root):
    """Process ids below `root`, without it."""
    parents = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {root}
    size = 0
    while size != len(found):
        size = len(found)
        found.update(pid for pid, parent in parents.items() if parent in found)
    return found - {root}


def kill_descendants(root, spare):
    """Kill every process below `root` but one."""
    for pid in descendants(root) - {spare}:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def become_subreaper():
    """Inherit orphans, so that they can be found; where there is no such call they escape."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (AttributeError, OSError):
        pass


def remove_tree(folder):
    """Remove a folder of a job that has ended; never follows a link. Folders nested without end are pulled up, not descended into."""
    try:
        if stat.S_ISLNK(os.lstat(folder).st_mode):
            os.unlink(folder)
            return True
        pulled = 0
        while True:
            entries = list(os.scandir(folder))
            if not entries:
                break
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                if os.geteuid() != 0:
                    os.chmod(entry.path, 0o700)
                for inner in list(os.scandir(entry.path)):
                    if inner.is_dir(follow_symlinks=False):
                        if os.geteuid() != 0:
                            os.chmod(inner.path, 0o700)
                        pulled += 1
                        os.rename(inner.path, os.path.join(folder, f"{pulled}-{time.monotonic_ns()}"))
                    else:
                        os.unlink(inner.path)
                os.rmdir(entry.path)
        os.rmdir(folder)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def oom_kills():
    """How many processes of this container the kernel has killed for memory."""
    for path in OOM_COUNTERS:
        try:
            with open(path) as file:
                for line in file:
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        except OSError:
            continue
    return 0


def findings(root):
    """The limits that hold here, as this container's kernel tells them: for `rlvr sandbox status`."""
    status = {}
    for line in read("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        status[name] = value.strip()
    where = os.statvfs(root)
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    memory = read("/sys/fs/cgroup/memory.max" if unified else "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    pids = read("/sys/fs/cgroup/pids.max" if unified else "/sys/fs/cgroup/pids/pids.max")
    return {
        "cgroup": 2 if unified else 1,
        "memory_bytes": int(memory) if memory.strip().isdigit() else None,
        "max_processes": int(pids) if pids.strip().isdigit() else None,
        "seccomp": status.get("Seccomp") == "2",
        "no_new_privileges": status.get("NoNewPrivs") == "1",
        "capabilities": status.get("CapBnd", ""),
        "network": [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]],
        "read_only_root": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "work_bytes": where.f_frsize * where.f_blocks,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
