"""Who holds a package manager's lock in the running root: a switch would let a second one run beside it, as the lock
is on an inode of the root that goes.
"""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.runner import processes, strays
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import refused, say

_LOCKS = frozenset(
    (
        *("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/dpkg/triggers/Lock"),
        *("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock", "/var/cache/debconf/config.dat"),
        *("/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock", "/lib/apk/db/lock", "/usr/lib/apk/db/lock"),
    )
)
PATIENCE = 120.0
"""Seconds that it is given to come to its end."""
_LOOK = 0.5


class Holder(NamedTuple):
    """A process, and the lock that it holds."""

    process: processes.Process
    path: str


def holder() -> Holder | None:
    """Who holds one; what has mounts of its own is another machine's."""
    namespace = processes.link(1, "ns/mnt")
    for process in processes.every():
        for descriptor, path in processes.opened(process.pid).items():
            if (
                path in _LOCKS
                and processes.locks(process.pid, descriptor)
                and processes.link(process.pid, "ns/mnt") == namespace
            ):
                return Holder(process, path)
    return None


def await_done(seconds: float = PATIENCE) -> None:
    """Waits for whoever holds one, saying so; leaves with 3 when it still does then."""
    deadline = Deadline(seconds)
    told = 0
    while found := holder():
        pid = found.process.pid
        if deadline.over():
            raise refused(
                f"{strays.called(found.process)} (process {pid}) holds {found.path}: a package manager is at work",
                f"wait for its end, or end it (kill {pid}), then run this again",
            )
        if told != pid:
            say(f"waiting for {strays.called(found.process)} (process {pid}), which holds {found.path}")
            told = pid
        with processes.Held(pid) as held:
            # It may let go of the lock and live on.
            held.gone(min(deadline.left(), _LOOK))
