"""Speaks with s6: the state of a service, its control pipe and that of s6-svscan, and waiting. It decides nothing.

s6 keeps both in files of a service directory, as its own s6-svstat, s6-svc and s6-svlink read them: no program is run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from contextlib import suppress
from typing import NamedTuple

from pyinfra_overlaymig.runner import files, linux
from pyinfra_overlaymig.runner.clock import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LABEL = 1 << 62
_TAI = 37
"""Seconds that s6's clock, atomic time, is ahead of UTC: since 2017, and no more leap seconds are planned."""
_TALLY = 14
_LOCK = "hhqqi4x"
"""struct flock."""


def directories(top: str) -> list[str]:
    """The names of the service directories in ``top``. What s6-svscan does not see is none: it may be half of one."""
    return [name for name in files.names(top) if not name.startswith(".") and os.path.isdir(f"{top}/{name}")]


class Status(NamedTuple):
    """What s6-supervise says of its service; times are seconds since 1970."""

    process: int
    """Of the service, or of its `finish` while that runs; 0 for neither."""
    finishing: bool
    paused: bool
    wanted_up: bool
    told_ready: bool
    """Down, with `finish` ended, counts as well."""
    since: float
    ready_since: float

    @property
    def up(self) -> bool:
        return self.process > 0 and not self.finishing

    @property
    def ready(self) -> bool:
        return self.up and self.told_ready

    @property
    def pid(self) -> int:
        """The process of the service, 0 when it is not up."""
        return self.process if self.up else 0

    @property
    def stopped(self) -> bool:
        """Down, with `finish` ended, and meant to stay so."""
        return not self.process and not self.wanted_up


class Death(NamedTuple):
    """One end of a service that s6-supervise remembers."""

    at: float
    exit_code: int
    signal: int


def _time(label: bytes) -> float:
    seconds, nanoseconds = int.from_bytes(label[:8], "big"), int.from_bytes(label[8:], "big")
    return seconds - _LABEL - _TAI + nanoseconds / 1e9


def unpack(data: bytes) -> Status:
    """The file `supervise/status`: of 35 bytes, or 43 in s6 2.13, which adds the process group."""
    flags = data[-1]
    return Status(
        process=int.from_bytes(data[24:32], "big"),
        finishing=bool(flags & 2),
        paused=bool(flags & 1),
        wanted_up=bool(flags & 4),
        told_ready=bool(flags & 8),
        since=_time(data[:12]),
        ready_since=_time(data[12:24]),
    )


def read(directory: str) -> Status | None:
    """The state of a service; None where nothing supervises it."""
    if not supervisor(directory):
        return None
    try:
        with open(f"{directory}/supervise/status", "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return unpack(data) if len(data) in (35, 43) else None


def deaths(directory: str) -> list[Death]:
    """How it ended, the latest time last; as often as its `max-death-tally` has it remembered."""
    try:
        with open(f"{directory}/supervise/death_tally", "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return []
    whole = range(0, len(data) - _TALLY + 1, _TALLY)
    return [Death(_time(data[at : at + 12]), data[at + 12], data[at + 13]) for at in whole]


def lock_owner(path: str) -> int:
    """Which process has the file ``path`` locked as s6 does it, 0 when none has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = struct.unpack(_LOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def supervisor(directory: str) -> int:
    """The s6-supervise of the service directory, 0 when there is none."""
    return lock_owner(f"{directory}/supervise/lock")


def scanner(scandir: str) -> int:
    """The s6-svscan of the scan directory, 0 when there is none."""
    return lock_owner(f"{scandir}/.s6-svscan/lock")


def control(directory: str, commands: str) -> bool:
    """Tells s6-supervise what s6-svc would; False where nobody listens."""
    return _tell(f"{directory}/supervise/control", commands)


def scan(scandir: str, commands: str) -> bool:
    """Tells s6-svscan what s6-svscanctl would; False where nobody listens."""
    return _tell(f"{scandir}/.s6-svscan/control", commands)


def _tell(fifo: str, commands: str) -> bool:
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    try:
        os.write(descriptor, commands.encode())
    finally:
        os.close(descriptor)
    return True


class Watch:
    """Hears of every change in the state of the services in ``directories``, also before they are supervised."""

    def __init__(self, *directories: str) -> None:
        self.descriptors: list[int] = []
        self.poll = select.poll()
        try:
            for directory in directories:
                self._add(f"{directory}/supervise")
        except OSError:
            self.close()
            raise

    def _add(self, supervise: str) -> None:
        # As s6-supervise makes it: it takes one that is there.
        with suppress(FileExistsError):
            os.mkdir(supervise, 0o700)
        # Its status is replaced by a rename.
        descriptor = linux.inotify(supervise, linux.IN_MOVED_TO)
        self.descriptors.append(descriptor)
        self.poll.register(descriptor, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Until something changes, at most ``seconds``."""
        for descriptor, _ in self.poll.poll(None if seconds == float("inf") else int(seconds * 1000) + 1):
            linux.drain(descriptor)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def until(test: Callable[[], bool], deadline: Deadline, *directories: str) -> bool:
    """Waits until ``test``, which asks for the state of these services, is true; False when it is not by then."""
    with Watch(*directories) as watch:
        while not test():
            if deadline.over():
                return False
            watch.wait(deadline.left())
    return True


def scanned(scandir: str, deadline: Deadline) -> bool:
    """Waits until s6-svscan runs on the scan directory."""
    place = f"{scandir}/.s6-svscan"
    if not scanner(scandir):
        # As s6-svscan makes it: it takes one that is there.
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)
        descriptor = linux.inotify(place, linux.IN_CREATE)
        try:
            while not scanner(scandir) and not deadline.over():
                # Its lock comes just after the file for it, and nothing tells of that.
                select.select([descriptor], [], [], min(deadline.left(), 0.1))
                linux.drain(descriptor)
        finally:
            os.close(descriptor)
    return bool(scanner(scandir))


def link(scandir: str, directory: str, name: str, deadline: Deadline) -> bool:
    """Has the service directory supervised as ``name``, as s6-svlink does; whether it is so in time."""
    parts = [directory]
    if files.plain_dir(f"{directory}/log"):
        parts.append(f"{directory}/log")
    with suppress(FileExistsError):
        os.symlink(directory, f"{scandir}/{name}")
    # Of a name that it has seen end a moment ago s6-svscan thinks for a second.
    return scan(scandir, "a") and until(lambda: all(map(read, parts)), deadline, *parts)


def unlink(scandir: str, name: str) -> bool:
    """Has s6-svscan give up ``name``, as s6-svunlink -X does; False where it does not listen."""
    with suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(f"{scandir}/{name}")
    return scan(scandir, "an")
