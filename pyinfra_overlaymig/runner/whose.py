"""Which service a process is of: by its session, its cgroup, the mark in its environment, or the logger it writes to.

Workers leave the session of what started them, or close what they were given: one of these is left of most.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.runner import processes, strays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Whose:
    """Asked for many processes; the services are looked at once."""

    def __init__(self, names: Iterable[str]) -> None:
        marks = [strays.marks(name) for name in names]
        self._names = {one.name for one in marks}
        self._sessions = {one.session: one.name for one in marks if one.session}
        self._cgroups = {one.cgroup: one.name for one in marks if one.cgroup}
        self._pipes = {one.pipe: one.name for one in marks if one.pipe}
        # What was called through a service has its mark, and is gone as soon as we are.
        self._callers = processes.ancestors(os.getpid())

    def service(self, process: processes.Process) -> str:
        """Its name; empty of a process that is none's of these."""
        if name := self._sessions.get(process.session) or self._by_cgroup(process.pid):
            return name
        if process.pid in self._callers:
            return ""
        if (name := strays.named(process.pid)) in self._names:
            return name
        outputs = (processes.link(process.pid, f"fd/{descriptor}") for descriptor in (1, 2))
        return next((self._pipes[one] for one in outputs if one in self._pipes), "")

    def _by_cgroup(self, pid: int) -> str:
        if not self._cgroups:
            return ""
        return next((self._cgroups[one] for one in strays.cgroups(pid) if one in self._cgroups), "")
