"""Holds every process of a root still while its root is changed, so that none sees the past or loses what it writes.

By PTRACE_SEIZE, which the kernel lifts by itself if this process dies, and no signal that a parent could see. What
cannot be held (traced by somebody else, or deep in the kernel) is told, and goes on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from typing import NamedTuple

from pyinfra_overlaymig.runner import linux

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_STOP_WITHIN = 0.05
"""Seconds that a thread may take to stop: one that is deep in the kernel does not, and nobody must wait for it."""
_LOOK = 0.0002
_ROUNDS = 10
"""How often those that were forked meanwhile are looked for; a fork is over long before."""


class Free(NamedTuple):
    """A thread that goes on, and why."""

    pid: int
    why: str


class Standstill:
    """All threads of the processes whose root is that of process 1, but this one's own; a context manager."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.free: dict[int, Free] = {}
        self.milliseconds = 0.0
        self._ptrace = linux.ptrace()
        self._root = os.stat("/proc/1/root/.")
        self._candidates = self._processes()

    def __enter__(self) -> Standstill:
        self._begun = time.monotonic()
        try:
            for _ in range(_ROUNDS):
                fresh = [thread for pid in self._candidates for thread in _threads(pid) if self._unknown(thread)]
                if not fresh:
                    break
                self._hold(fresh)
                self._candidates = self._processes()
        except BaseException:
            self.let_go()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """They go on."""
        for thread in self.held:
            # One that was killed meanwhile is gone.
            self._ptrace(_DETACH, thread, None, None)
        self.held.clear()
        self.milliseconds = (time.monotonic() - self._begun) * 1000

    def _unknown(self, thread: int) -> bool:
        return thread not in self.held and thread not in self.free

    def _processes(self) -> list[int]:
        return [pid for name in os.listdir("/proc") if name.isdecimal() and self._is_of_root(pid := int(name))]

    def _is_of_root(self, pid: int) -> bool:
        if pid == os.getpid():
            return False
        try:
            # Threads of the kernel, and what has ended, have no program.
            os.readlink(f"/proc/{pid}/exe")
            found = os.stat(f"/proc/{pid}/root/.")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
        return (found.st_dev, found.st_ino) == (self._root.st_dev, self._root.st_ino)

    def _hold(self, threads: list[int]) -> None:
        asked = [thread for thread in threads if self._ask(thread)]
        until = time.monotonic() + _STOP_WITHIN
        while asked:
            asked = [thread for thread in asked if not self._has_stopped(thread)]
            if asked and time.monotonic() > until:
                self._give_up(asked)
                return
            if asked:
                # wait(2) has no limit of its own, and a stop has no descriptor.
                time.sleep(_LOOK)

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
        if number != errno.ESRCH:
            self.free[thread] = Free(
                thread, "somebody else traces it" if number == errno.EPERM else os.strerror(number)
            )

    def _has_stopped(self, thread: int) -> bool:
        try:
            return os.waitpid(thread, os.WNOHANG | _WALL)[0] == thread
        except ChildProcessError:
            return True

    def _give_up(self, threads: list[int]) -> None:
        for thread in threads:
            self.free[thread] = Free(thread, "it is deep in the kernel")
            # It cannot be let go of before it stops: the kernel does that when this process ends.
            self.held.discard(thread)


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
