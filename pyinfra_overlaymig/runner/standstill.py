"""Holds every process of a root still while its root is changed, so that none sees the past or loses what it writes.

By PTRACE_SEIZE, which the kernel lifts by itself if this process dies, and no signal that a parent could see. What
cannot be held (traced by somebody else, or deep in the kernel) is told, and goes on.
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import time
from typing import NamedTuple

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.runner import files, linux, spawn

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_STOP_WITHIN = 0.05
"""Seconds that a thread may take to stop: one that is deep in the kernel does not, and nobody must wait for it."""
_STOPS = 0.002
"""Seconds that others take: what has not stopped then may be waiting for one that has."""
_LOOK = 0.0002
_ROUNDS = 10
"""How often those that were forked meanwhile are looked for; a fork is over long before."""
_CHANGE_NO_NAME = {
    "x86_64": (0, 1, 17, 18, 19, 20, 26, 74, 75, 162, 277),
    "aarch64": (63, 64, 65, 66, 67, 68, 69, 70, 81, 82, 83, 84, 227, 267),
}
"""The numbers of read, write and their like, fsync, fdatasync, msync, sync, sync_file_range and syncfs; of x86_64,
those that are nothing else in programs of 32 bits.
"""


class Free(NamedTuple):
    """A thread that goes on, and why."""

    pid: int
    why: str


class Standstill:
    """All threads of the processes whose root is that of process 1, or below it; a context manager.

    It is a child that holds them: what did not stop in time would stop later, and only the end of who asked for it
    takes that back.
    """

    def __init__(self) -> None:
        self.free: list[Free] = []
        self.milliseconds = 0.0
        self._begun = time.monotonic()

    def __enter__(self) -> Standstill:
        told, tells = os.pipe()
        waits, self._goes = os.pipe()
        self._child = spawn.fork(lambda: _hold(told, tells, waits, self._goes))
        os.close(tells)
        os.close(waits)
        with open(told, "rb") as file:
            answer = file.read()
        if not answer:
            self.__exit__()
            raise OSError(errno.ECHILD, "who holds the machine still was ended")
        self._begun, free = marshal.loads(answer)  # noqa: S302 - a child of this very process wrote it
        self.free = [Free(*one) for one in free]
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._goes)
        spawn.wait(self._child)
        self.milliseconds = (time.monotonic() - self._begun) * 1000


def _hold(told: int, tells: int, waits: int, goes: int) -> None:
    """In the child: holds them until the parent closes its end of a pipe, or dies."""
    os.close(told)
    os.close(goes)
    holder = _Holder()
    begun = time.monotonic()
    holder.hold()
    with open(tells, "wb") as file:
        file.write(marshal.dumps((begun, [tuple(one) for one in holder.free.values()])))
    os.read(waits, 1)
    holder.let_go()


class _Holder:
    def __init__(self) -> None:
        self.held: set[int] = set()
        self.free: dict[int, Free] = {}
        self._ptrace = linux.ptrace()
        self._device = os.stat("/proc/1/root/.").st_dev
        self._own = (os.getpid(), os.getppid())
        self._candidates = self._processes()

    def hold(self) -> None:
        """They stand still, or are told in ``free``."""
        for _ in range(_ROUNDS):
            fresh = [thread for pid in self._candidates for thread in _threads(pid) if self._unknown(thread)]
            if not fresh:
                break
            self._hold(fresh)
            self._candidates = self._processes()

    def let_go(self) -> None:
        """They go on; what has not stopped by now, when this process ends."""
        for thread in self.held:
            # One that was killed meanwhile is gone.
            self._ptrace(_DETACH, thread, None, None)

    def _unknown(self, thread: int) -> bool:
        return thread not in self.held and thread not in self.free

    def _processes(self) -> list[int]:
        return [pid for name in os.listdir("/proc") if name.isdecimal() and self._is_of_root(pid := int(name))]

    def _is_of_root(self, pid: int) -> bool:
        if pid in self._own:
            return False
        try:
            # Threads of the kernel, and what has ended, have no program.
            os.readlink(f"/proc/{pid}/exe")
            found = os.stat(f"/proc/{pid}/root/.")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
        # Also what is chrooted below it: it stays in the root that goes, and what it wrote until now is brought over.
        return found.st_dev == self._device

    def _hold(self, threads: list[int]) -> None:
        asked = [thread for thread in threads if self._ask(thread)]
        begun = time.monotonic()
        while asked := [thread for thread in asked if not self._has_stopped(thread)]:
            if time.monotonic() > begun + _STOP_WITHIN:
                self._give_up(asked)
                return
            if time.monotonic() > begun + _STOPS:
                asked = [one for one in asked if not _changes_no_name(one) and not self._waits_for_held(one)]
            # wait(2) has no limit of its own, and a stop has no descriptor.
            time.sleep(_LOOK)

    def _waits_for_held(self, thread: int) -> bool:
        """Whether it waits, as after vfork(2), for a child in its memory, and that stands still."""
        process = _status(thread).get("Tgid", "")
        return any(
            _status(child).get("PPid") == process and linux.same_memory(thread, child)
            for child in self.held
            if child != thread
        )

    def _ask(self, thread: int) -> bool:
        if self._ptrace(_SEIZE, thread, None, None) < 0:
            self._note(thread)
            return False
        self.held.add(thread)
        if self._ptrace(_INTERRUPT, thread, None, None) < 0:
            self.held.discard(thread)
            return False
        return True

    def _note(self, thread: int) -> None:
        number = ctypes.get_errno()
        # Of one that is just ending, the kernel says the same as of one that it protects.
        if number != errno.ESRCH and (tracer := _tracer(thread)) is not None:
            self.free[thread] = Free(thread, "somebody else traces it" if tracer else os.strerror(number))

    def _has_stopped(self, thread: int) -> bool:
        try:
            return os.waitpid(thread, os.WNOHANG | _WALL)[0] == thread
        except ChildProcessError:
            return True

    def _give_up(self, threads: list[int]) -> None:
        for thread in threads:
            self.free[thread] = Free(thread, "it is deep in the kernel")


def _changes_no_name(thread: int) -> bool:
    """Whether it waits for the disk in a call that makes, renames and removes nothing: it stops at the end of that, and
    what it writes there goes to a file that both roots have.
    """
    try:
        number = files.first_line(f"/proc/{thread}/syscall").partition(" ")[0]
    except (ProcessLookupError, PermissionError):
        return False
    return number.isdecimal() and int(number) in _CHANGE_NO_NAME.get(os.uname().machine, ())


def _tracer(thread: int) -> int | None:
    """Who traces it, 0 when nobody does; None when it has ended."""
    found = _status(thread)
    return int(found["TracerPid"]) if found.get("State", "X")[0] not in "ZX" else None


def _status(thread: int) -> dict[str, str]:
    try:
        return dict(lines.pairs(files.read(f"/proc/{thread}/status").replace(":\t", " ")))
    except ProcessLookupError:
        return {}


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
