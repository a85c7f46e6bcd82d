"""What is bound to inodes of a root that is gone: a switch gives every path another inode, and these keep the old one.

A socket that listens there refuses who connects by its path, a lock is granted twice, a FIFO's other end never comes, a
watch hears nothing, a working directory has no name. It is seen by its device, which no mount of the running root has:
so it can be asked at any time after a switch, also after one that was interrupted.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import NamedTuple

from pyinfra_overlaymig.format import octal, paths
from pyinfra_overlaymig.runner import files, mountinfo, mounts, processes, services, sockets, strays
from pyinfra_overlaymig.runner.say import warn
from pyinfra_overlaymig.runner.whose import Whose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

SOCKET, LOCK, FIFO, WATCH, DIRECTORY, ROOT = "socket", "lock", "FIFO", "watch", "directory", "root directory"
_WATCHED = re.compile(r"^(?:inotify wd:\S+|fanotify)(?: ino:\S+)? sdev:([0-9a-f]+)", re.MULTILINE)
_WATCHED_MOUNT = re.compile(r"^fanotify mnt_id:([0-9a-f]+)", re.MULTILINE)


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
        if pids is not None and process.pid not in pids:
            continue
        own = _namespace(process.pid) != namespace
        held = dict.fromkeys(look.apart(process.pid) if own else look.at(process.pid))
        found += [Held(process.pid, process.name, what, path, process.began) for what, path in held]
    return found


def _namespace(pid: int) -> str:
    return processes.link(pid, "ns/mnt")


class _Look:
    """At processes, for what they have that is on none of the devices of the running root."""

    def __init__(self) -> None:
        there = [one for one in mountinfo.read(1) if not one.place.startswith((f"{paths.RUN}/", paths.OLD))]
        self.mounts = {one.id for one in there}
        self.devices = {os.makedev(*map(int, one.device.split(":"))) for one in there}
        bound = (one for one in sockets.bound() if one.device not in self.devices)
        # What has no name any more, nobody reaches by it; where a relative one leads, nobody knows.
        self.bound = {one.inode: one.path for one in bound if one.path[0] != "/" or files.there(paths.LIVE + one.path)}

    def at(self, pid: int) -> Iterator[tuple[str, str]]:
        """What process ``pid`` has, and where."""
        # The kernel moves those whose root, or place, is the root itself. What was put below it stays where it is.
        if path := self._gone(pid, "root"):
            yield ROOT, path
            return
        if path := self._gone(pid, "cwd"):
            yield DIRECTORY, path
        for descriptor, path in processes.opened(pid).items():
            if what := self._descriptor(pid, descriptor, path):
                yield what

    def apart(self, pid: int) -> Iterator[tuple[str, str]]:
        """The same of one that has mounts of its own (unshare -m, ip netns exec): the kernel moves it to no other root.
        A stage, or a container, has a root that never was the running one.
        """
        here = _status(pid, "root")
        if here is None or here.st_dev in self.devices:
            return
        with suppress(*processes.GONE):
            root = mountinfo.at("/", pid)
            if root and os.makedev(*map(int, root.device.split(":"))) == here.st_dev and mounts.is_running_root(root):
                yield ROOT, "/"

    def _gone(self, pid: int, what: str) -> str:
        """Where a directory of it is that is on none of the devices; empty where it is not so."""
        here, path = _status(pid, what), processes.link(pid, what)
        if here is None or path == "/" or path.startswith(paths.RUN) or here.st_dev in self.devices:
            return ""
        # A subvolume of btrfs has a device of its own.
        return "" if _is_now(path, here) else path

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
        stale = found and found.st_dev not in self.devices
        return (LOCK, path) if stale and not self.devices.issuperset(processes.locks(pid, descriptor)) else None

    def _watches(self, pid: int, descriptor: int) -> bool:
        """Whether all that it watches is there."""
        about = processes.about(pid, descriptor)
        watched = {sockets.kernel_device(int(device, 16)) for device in _WATCHED.findall(about)}
        return watched <= self.devices and {int(id, 16) for id in _WATCHED_MOUNT.findall(about)} <= self.mounts


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


def services_of(held: Iterable[Held]) -> tuple[dict[str, list[Held]], list[Held]]:
    """The supervised services that hold some of it and may be restarted, with what; and what others hold.

    Our callers are about to end, but for a shell that somebody sits at.
    """
    whose = Whose(services.supervised())
    callers = processes.ancestors(os.getpid())
    names: dict[str, list[Held]] = {}
    others = []
    for one in held:
        process = processes.read(one.pid)
        name = whose.service(process) if process else ""
        if name and services.restart(name) != "never":
            names.setdefault(name, []).append(one)
        elif process and (one.pid not in callers or (one.what == DIRECTORY and _has_terminal(one.pid))):
            others.append(one)
    return names, others


def end_left(marks: strays.Marks, held: Iterable[Held]) -> None:
    """Ends those of a service that has stopped: a daemon that has left its session is not told to end with it, and
    would keep a new one from starting.
    """
    callers = processes.ancestors(os.getpid())
    found = {one.pid: process for one in held if (process := processes.read(one.pid)) and process.began == one.began}
    strays.end(marks, [process for pid, process in found.items() if pid not in callers])


def _has_terminal(pid: int) -> bool:
    return processes.link(pid, "fd/0").startswith(("/dev/pts/", "/dev/tty"))


def tell(others: Collection[Held]) -> None:
    """Names processes that go on with what is not there any more, here and in `status`."""
    for name, pid in dict.fromkeys((one.name, one.pid) for one in others):
        its = [one for one in others if one.pid == pid]
        remedy = "leave it and come back" if {one.what for one in its} == {DIRECTORY} else "restart it"
        warn(f"{name} (process {pid}) holds what is of the root before ({_things(its)}): {remedy}")
    files.write_file(_noted(), "".join(map(_line, others)))


def _line(one: Held) -> str:
    path, name = octal.escape_text(one.path), octal.escape_text(one.name)
    return f"{one.pid} {one.began:.2f} {one.what.replace(' ', '-')} {path} {name}\n"


def told() -> list[Held]:
    """What those that `tell` named, and that still run, hold still."""
    noted = set()
    for line in files.lines(_noted()):
        pid, began, *_ = line.split(" ", 2)
        process = processes.read(int(pid))
        if process and f"{process.began:.2f}" == began:
            noted.add(process.pid)
    return stale(noted) if noted else []


def keep(directory: str) -> None:
    """What `tell` named goes into the record that ``directory`` is."""
    if text := files.read(_noted()):
        files.write_file(f"{directory}/stale", text)


def _noted() -> str:
    return f"{paths.RUN}/stale"


def _things(held: Collection[Held]) -> str:
    """What one process holds, in words: of each kind the first, and how many more."""
    found = []
    for what in dict.fromkeys(one.what for one in held):
        first, *more = [one for one in held if one.what == what]
        found.append(thing(first) + (f" and {len(more)} more" if more else ""))
    return ", ".join(found)


def thing(one: Held) -> str:
    """What it is, and where."""
    return f"{one.what} {octal.escape_text(one.path)}" if one.path else one.what
