"""Processes as /proc tells them: which there are, what they have open; and how they end. Whose they are others say."""

from __future__ import annotations

import errno
import os
import select
import signal
from contextlib import suppress
from typing import NamedTuple

from pyinfra_overlaymig.runner import files
from pyinfra_overlaymig.runner.clock import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What reading /proc answers when a process ended meanwhile; or is none that even root may look into."""


class Process(NamedTuple):
    """One process; ``began`` in seconds since the machine's start."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    began: float


def parse(text: str) -> Process:
    """A line of /proc/PID/stat. The name may hold anything, blanks and brackets too."""
    pid, _, rest = text.partition(" (")
    name, _, rest = rest.rpartition(") ")
    state, parent, group, session, *fields = rest.split(" ")
    return Process(int(pid), name, state, int(parent), int(group), int(session), int(fields[15]) / _TICKS)


def read(pid: int) -> Process | None:
    """Process ``pid``, None when it has ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
            process = parse(file.read())
    except GONE:
        return None
    return None if process.state in "ZX" else process


def every() -> Iterator[Process]:
    """All processes that this one sees."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and (process := read(int(name))):
            yield process


def ancestors(pid: int) -> set[int]:
    """Process ``pid``, what started it, what started that, and so on."""
    found: set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        process = read(pid)
        pid = process.parent if process else 0
    return found


def arguments(pid: int) -> list[str]:
    """Its command line, empty when it has ended or is the kernel's."""
    with suppress(*GONE):
        text = files.read(f"/proc/{pid}/cmdline")
        return text.removesuffix("\0").split("\0") if text else []
    return []


def environment(pid: int) -> set[str]:
    """The variables that its program began with, empty when it has ended."""
    with suppress(*GONE):
        return set(files.read(f"/proc/{pid}/environ").split("\0"))
    return set()


def link(pid: int, what: str) -> str:
    """What a link of /proc/PID means, empty when it has ended; and where that is too long for the kernel to say."""
    try:
        return os.readlink(f"/proc/{pid}/{what}")
    except GONE:
        return ""
    except OSError as error:
        # Any user may stand as deep as he likes.
        if error.errno != errno.ENAMETOOLONG:
            raise
        return ""


def opened(pid: int) -> dict[int, str]:
    """Its descriptors and what they are, as paths or `pipe:[4711]`."""
    with suppress(*GONE):
        return {int(name): one for name in os.listdir(f"/proc/{pid}/fd") if (one := link(pid, f"fd/{name}"))}
    return {}


def mapped(pid: int) -> set[str]:
    """The paths of what it has mapped, its program and libraries among them."""
    try:
        text = files.read(f"/proc/{pid}/maps")
    except GONE:
        return set()
    return {line[line.index("/") :] for line in text.split("\n") if "/" in line}


def about(pid: int, descriptor: int) -> str:
    """What the kernel says of a descriptor of it, empty when it has ended."""
    with suppress(*GONE):
        return files.read(f"/proc/{pid}/fdinfo/{descriptor}")
    return ""


def flags(pid: int, descriptor: int) -> int:
    """How a descriptor of it was opened, as of open(2); 0 when it has ended."""
    for line in about(pid, descriptor).split("\n"):
        key, _, value = line.partition(":\t")
        if key == "flags":
            return int(value, 8)
    return 0


def locks(pid: int, descriptor: int) -> list[int]:
    """The devices of what is locked through a descriptor of it, of whatever kind of lock.

    /proc/locks leaves out those whose taker has ended, such as flock(1) in a shell's script.
    """
    found = []
    for line in about(pid, descriptor).split("\n"):
        if line.startswith("lock:"):
            major, minor, _ = line.split()[-3].split(":")
            found.append(os.makedev(int(major, 16), int(minor, 16)))
    return found


class Held:
    """Process ``pid``, 0 for none: while this lives, the number is nobody else's."""

    def __init__(self, pid: int) -> None:
        self.descriptor = -1
        if pid:
            with suppress(ProcessLookupError):
                self.descriptor = os.pidfd_open(pid)

    def gone(self, seconds: float) -> bool:
        """Waits for its end; whether it came."""
        if self.descriptor < 0:
            return True
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(Deadline(seconds).milliseconds()))

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, unless it has ended."""
        if self.descriptor >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, number)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def end(victims: Iterable[Process], number: signal.Signals, patience: float) -> list[Process]:
    """Sends ``number``, and KILL to what is there after ``patience`` seconds; what even that did not end."""
    held = {descriptor: one for one in victims if (descriptor := _hold(one)) is not None}
    try:
        left = held
        for one, seconds in ((number, patience), (signal.SIGKILL, 5.0)):
            for descriptor in left:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, one)
                    # One that stands still would hear it at the end only.
                    signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            left = _wait(left, Deadline(seconds))
        return list(left.values())
    finally:
        for descriptor in held:
            os.close(descriptor)


def _hold(process: Process) -> int | None:
    """A descriptor of just this process, whatever becomes of its number."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    found = read(process.pid)
    if found and found.began == process.began:
        return descriptor
    os.close(descriptor)
    return None


def _wait(held: dict[int, Process], deadline: Deadline) -> dict[int, Process]:
    poll = select.poll()
    for descriptor in held:
        poll.register(descriptor, select.POLLIN)
    left = dict(held)
    while left and not deadline.over():
        for descriptor, _ in poll.poll(deadline.milliseconds()):
            poll.unregister(descriptor)
            del left[descriptor]
    return left
