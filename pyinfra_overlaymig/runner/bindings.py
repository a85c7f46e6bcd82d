"""What is bound to inodes of a root that is gone: a switch gives every path another inode, and these keep the old one.

A socket that listens there refuses who connects by its path, a lock is granted twice, a FIFO's other end never comes, a
watch hears nothing, a working directory has no name. It is seen by its device, which no mount of the running root has:
so it can be asked at any time after a switch, also after one that was interrupted.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format import octal, paths
from pyinfra_overlaymig.runner import files, mountinfo, processes, s6, services, sockets
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

SOCKET, LOCK, FIFO, WATCH, DIRECTORY = "socket", "lock", "FIFO", "watch", "directory"
_REMEDY = {DIRECTORY: "leave it and come back"}
_LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
    "/var/lib/rpm/.rpm.lock",
)
"""Of package managers, as of fcntl(2)."""
_WATCHED = re.compile(r"^(?:inotify wd:\S+|fanotify) ino:\S+ sdev:([0-9a-f]+)", re.MULTILINE)


class Held(NamedTuple):
    """``what`` of a root that is gone a process holds; ``path`` is empty where the kernel does not tell it."""

    pid: int
    name: str
    what: str
    path: str
    began: float


def stale(pids: Collection[int] | None = None) -> list[Held]:
    """What processes of the running root hold of one before; of ``pids`` alone, if they are given."""
    look = _Look()
    namespace = _namespace(1)
    found: list[Held] = []
    for process in processes.every():
        if (pids is None or process.pid in pids) and _namespace(process.pid) == namespace:
            held = dict.fromkeys(look.at(process.pid))
            found += [Held(process.pid, process.name, what, path, process.began) for what, path in held]
    return found


def _namespace(pid: int) -> str:
    # What has mounts of its own is no process of the running root: another stage, a container.
    return processes.link(pid, "ns/mnt")


def _devices() -> set[int]:
    """Of all that is mounted in the running root, but for what is the runner's own."""
    return {
        os.makedev(*map(int, one.device.split(":")))
        for one in mountinfo.read(1)
        if not one.place.startswith((f"{paths.RUN}/", paths.OLD))
    }


def _locks(devices: set[int]) -> set[tuple[int, int]]:
    """Device and inode of each file that is locked and lies on none of ``devices``."""
    found = set()
    for line in files.lines("/proc/locks"):
        major, minor, inode = line.split(" -> ")[-1].split()[-3].split(":")
        device = os.makedev(int(major, 16), int(minor, 16))
        if device not in devices:
            found.add((device, int(inode)))
    return found


class _Look:
    """At processes, for what they have that is on none of the devices of the running root."""

    def __init__(self) -> None:
        self.devices = _devices()
        self.bound = {one.inode: one.path for one in sockets.bound() if one.device not in self.devices}
        self.locks = _locks(self.devices)

    def at(self, pid: int) -> Iterator[tuple[str, str]]:
        """What process ``pid`` has, and where."""
        here, path = _status(pid, "cwd"), processes.link(pid, "cwd")
        # The kernel moves those that stand in the root itself. A subvolume of btrfs has a device of its own.
        if here and path != "/" and here.st_dev not in self.devices and not _is_now(path, here):
            yield DIRECTORY, path
        for descriptor, path in processes.opened(pid).items():
            if what := self._descriptor(pid, descriptor, path):
                yield what

    def _descriptor(self, pid: int, descriptor: int, path: str) -> tuple[str, str] | None:
        kind, _, inode = path.rstrip("]").partition(":[")
        if kind == "socket":
            return (SOCKET, self.bound[int(inode)]) if int(inode) in self.bound else None
        if path.startswith("anon_inode:"):
            return None if "notify" not in path or self._watches(pid, descriptor) else (WATCH, "")
        # What has no name any more, others do not reach by it.
        if not path.startswith("/") or path.endswith(" (deleted)"):
            return None
        found = _status(pid, f"fd/{descriptor}")
        if found and stat.S_ISFIFO(found.st_mode):
            return None if _is_now(path, found) else (FIFO, path)
        return (LOCK, path) if self.locks and _is_locked(pid, descriptor, self.locks) else None

    def _watches(self, pid: int, descriptor: int) -> bool:
        """Whether all that it watches is there."""
        watched = {sockets.kernel_device(int(device, 16)) for device in _WATCHED.findall(_about(pid, descriptor))}
        return watched <= self.devices


def _status(pid: int, what: str) -> os.stat_result | None:
    try:
        return os.stat(f"/proc/{pid}/{what}")
    except processes.GONE:
        return None


def _is_now(path: str, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(paths.LIVE + path), found)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_locked(pid: int, descriptor: int, locks: set[tuple[int, int]]) -> bool:
    for line in _about(pid, descriptor).split("\n"):
        if line.startswith("lock:"):
            major, minor, inode = line.split()[-3].split(":")
            if (os.makedev(int(major, 16), int(minor, 16)), int(inode)) in locks:
                return True
    return False


def _about(pid: int, descriptor: int) -> str:
    try:
        return files.read(f"/proc/{pid}/fdinfo/{descriptor}")
    except ProcessLookupError:
        return ""


def services_of(held: Iterable[Held]) -> tuple[set[str], list[Held]]:
    """The supervised services that hold some of it and may be restarted; and what others hold, but for our callers."""
    sessions: dict[int, str] = {}
    for name in services.supervised():
        status = s6.read(services.linked(name))
        if status and status.pid:
            sessions[status.pid] = name
    callers = processes.ancestors(os.getpid())
    names, others = set(), []
    for one in held:
        process = processes.read(one.pid)
        name = sessions.get(process.session, "") if process else ""
        if name and services.restart(name) != "never":
            names.add(name)
        elif process and one.pid not in callers:
            others.append(one)
    return names, others


def tell(others: Collection[Held]) -> None:
    """Names processes that go on with what is not there any more, here and in `status`."""
    for one in others:
        warn(f"{one.name} (process {one.pid}) holds a {one.what} of the root before{_at(one)}: {_remedy(one)}")
    lines = [f"{one.pid} {one.began:.2f} {one.what} {octal.escape_text(one.path)} {one.name}" for one in others]
    files.write_file(_noted(), "".join(f"{line}\n" for line in lines))


def told() -> list[Held]:
    """Those that `tell` named and that still run."""
    found = []
    for line in files.lines(_noted()):
        pid, began, what, path, name = line.split(" ", 4)
        process = processes.read(int(pid))
        if process and f"{process.began:.2f}" == began:
            found.append(Held(process.pid, name, what, octal.unescape_text(path), process.began))
    return found


def _noted() -> str:
    return f"{paths.RUN}/stale"


def _at(one: Held) -> str:
    return f", {one.path}" if one.path else ""


def _remedy(one: Held) -> str:
    return _REMEDY.get(one.what, "restart it")


def package_manager() -> processes.Process | None:
    """Who holds a package manager's lock in the running root."""
    for path in _LOCKS:
        pid = s6.lock_owner(f"{paths.LIVE}{path}")
        if pid and (process := processes.read(pid)):
            return process
    return None


def package_manager_is_done(seconds: float) -> processes.Process | None:
    """Waits for whoever holds a package manager's lock; who still does then."""
    deadline = Deadline(seconds)
    while (holder := package_manager()) and not deadline.over():
        with processes.Held(holder.pid) as held:
            # It may let go of the lock and live on.
            held.gone(min(deadline.left(), 0.5))
    return holder
