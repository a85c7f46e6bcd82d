"""Whose call it is: the runner's, or that of a script or a service that the runner, or a machine's boot, has started.

What is said here about the runner holds whatever language it is in: its processes are known by where they descend from
and by the root they stand in. It starts in the live root and goes into the base view; what it sends back into the live
root, or into a stage's root, to execute a program there, is an operator's: an install script, a health check. Only
pivot_root(8), which has to be called from the live root, is its own.
"""

from __future__ import annotations

from pathlib import Path

from tests.crash import calls, processes
from tests.crash.seccomp import EXEC, Stopped

LAUNCHER = "/system-migrate"
"""How the path ends that a machine executes to boot."""
_BASE = "run/system-migrate/base"

Root = tuple[int, int]


class Owner:
    """Knows whose the calls of one tree are. ``top``: its first process. ``machine``: process 1 of the machine.

    In a tree that is the machine itself, ``machine`` is 0 until the machine's boot executes the runner.
    """

    def __init__(self, top: int, machine: int = 0) -> None:
        self.top = top
        self.machine = machine
        self.seen = {top}
        self._over = False
        self._view: Root | None = None
        self._others: set[int] = set()
        self._inside: set[int] = set()
        self._verdicts: dict[int, bool] = {}

    def executes(self, stopped: Stopped) -> None:
        """Take notice of a program that is about to be executed."""
        pid, name = stopped.pid, calls.string(stopped.pid, stopped.args[0 if stopped.name == "execve" else 1])
        self.seen.add(pid)
        self._verdicts.pop(pid, None)
        if not self.machine:
            if name.endswith(LAUNCHER):
                self.machine = pid
            return
        if pid == self.machine:
            # Process 1 becomes what it boots, sooner or later.
            self._over = name.rpartition("/")[2] == "s6-svscan"
            return
        where = _root(pid)
        if name.rpartition("/")[2] == "s6-supervise" or self._is_sent(pid, where):
            self._others.add(pid)

    def is_runner(self, stopped: Stopped) -> bool:
        """Whether the runner makes this call."""
        pid = stopped.pid
        self.seen.add(pid)
        if not self.machine or stopped.name in EXEC or (pid == self.machine and self._over):
            return False
        if stopped.name == "pivot_root" and _root(pid) == _root(self.machine):
            return True
        if pid not in self._verdicts:
            self._verdicts[pid] = not self._is_other(pid) and (self._is_from_inside(pid) or self._descends(pid))
        return self._verdicts[pid]

    def verb(self, pid: int) -> int:
        """What of a machine's boot ``pid`` is part of: the child of process 1, or process 1 itself."""
        while pid != self.machine and (above := processes.parent(pid)) not in {0, self.machine}:
            pid = above
        return pid

    def _is_sent(self, pid: int, where: Root | None) -> bool:
        """Whether a process is outside the base view, and has come from there: not on its way into it."""
        if where and where == self._base():
            self._inside.add(pid)
            return False
        return self._is_from_inside(pid)

    def _is_from_inside(self, pid: int) -> bool:
        """Whether it stands in the base view, or was started from there: it may be a runner that changed its root."""
        return any(self._is_inside(one) for one in self._line(pid))

    def _is_inside(self, pid: int) -> bool:
        return pid in self._inside or (_root(pid) or ()) == self._base()

    def _is_other(self, pid: int) -> bool:
        return any(one in self._others for one in self._line(pid))

    def _descends(self, pid: int) -> bool:
        # What a service has left behind is process 1's child, too; by now the runner stands in the base view.
        return not self._over and self.top in self._line(pid)

    def _line(self, pid: int) -> list[int]:
        """A process and those it descends from, up to the first of the tree."""
        line = []
        while pid > 1:
            line.append(pid)
            if pid == self.top:
                break
            pid = processes.parent(pid)
        return line

    def _base(self) -> Root | None:
        """The base view, once it is mounted: in the middle of a switch its place is an empty directory."""
        if not self._view:
            found, above = (_identity(f"/proc/{self.machine}/root/{path}") for path in (_BASE, f"{_BASE}/.."))
            if found and above and found[0] != above[0]:
                self._view = found
        return self._view


def _root(pid: int) -> Root | None:
    return _identity(f"/proc/{pid}/root")


def _identity(path: str) -> Root | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
