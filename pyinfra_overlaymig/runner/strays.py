"""What a service leaves behind: processes of its session, with its mark, or that hold the pipe to its logger.

s6-supervise ends one process; s6-log waits until nobody can write to it any more.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NamedTuple

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import files, processes, s6
from pyinfra_overlaymig.runner.processes import Process
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PATIENCE = 30.0
"""Seconds between a service's signal and KILL, where it sets no limit: as `finish` does it."""


_MARK = "SYSTEM_MIGRATE_SERVICE"
"""What a service has in its environment (s6/run.sh): its name. A process that forks twice and closes all keeps it."""


class Marks(NamedTuple):
    """What tells the processes of one service; noted while it is supervised."""

    name: str
    session: int
    """s6-supervise makes a service the leader of one of its own. 0 when it is down: numbers are used again."""
    pipe: str
    cgroup: str
    """A line of /proc/PID/cgroup, where it is in one below that of its supervisor; else empty."""
    spared: bool
    """This runner was called through it: what it leaves may be the connection."""


def marks(name: str) -> Marks:
    """Of the service ``name``, as it runs now."""
    directory = f"{paths.SERVICEDIRS}/{name}"
    status, log = s6.read(directory), s6.read(f"{directory}/log")
    pid = status.process if status else 0
    logger = (log.process if log else 0) or s6.supervisor(f"{directory}/log")
    spared = bool(pid) and pid in processes.ancestors(os.getpid())
    return Marks(name, pid, _pipe(logger), own_cgroup(cgroups(pid), cgroups(s6.supervisor(directory))), spared)


def own_cgroup(service: list[str], supervisor: list[str]) -> str:
    """Of the lines of /proc/PID/cgroup of both, the one where the service is strictly below its supervisor, if any.

    Where it is beside it or above, others are as well; of what has ended the kernel says `/`.
    """
    above = {line.split(":", 2)[0]: line.split(":", 2)[2].rstrip("/") for line in supervisor}
    for line in service:
        hierarchy, _, path = line.split(":", 2)
        if hierarchy in above and len(path) > len(above[hierarchy]) + 1 and path.startswith(f"{above[hierarchy]}/"):
            return line
    return ""


def cgroups(pid: int) -> list[str]:
    """The lines of its /proc/PID/cgroup, none when it has ended."""
    with suppress(*processes.GONE):
        return files.lines(f"/proc/{pid}/cgroup") if pid else []
    return []


def _pipe(logger: int) -> str:
    found = processes.link(logger, "fd/0") if logger else ""
    return found if found.startswith("pipe:") else ""


def of_session(one: Marks) -> list[Process]:
    """What is left of its session or cgroup, but for those that supervise it."""
    if not one.session:
        return []
    spared = _not_ours(one.name)
    return [
        found
        for found in processes.every()
        if found.pid not in spared and (found.session == one.session or one.cgroup in cgroups(found.pid))
    ]


def of_name(one: Marks) -> list[Process]:
    """What began with the environment of the service, but for those that supervise it and what this runner started."""
    spared, mark = _not_ours(one.name), f"{_MARK}={one.name}"
    found = [process for process in processes.every() if mark in processes.environment(process.pid)]
    return [process for process in found if process.pid not in spared and not _is_ours(process)]


def named(pid: int) -> str:
    """The service whose mark it began with, empty where it has none."""
    found = (one.removeprefix(f"{_MARK}=") for one in processes.environment(pid) if one.startswith(f"{_MARK}="))
    return next(found, "")


def _is_ours(process: Process) -> bool:
    return os.getpid() in processes.ancestors(process.pid)


def of_pipe(one: Marks) -> list[Process]:
    """What can still write to its logger, but for those that supervise it."""
    if not one.pipe:
        return []
    spared = _not_ours(one.name)
    return [process for process in processes.every() if process.pid not in spared and _writes(process.pid, one.pipe)]


def _writes(pid: int, pipe: str) -> bool:
    return any(
        found == pipe and processes.flags(pid, descriptor) & os.O_ACCMODE != os.O_RDONLY
        for descriptor, found in processes.opened(pid).items()
    )


def _not_ours(name: str) -> set[int]:
    """What supervises, and what this runner was called by."""
    directory = f"{paths.SERVICEDIRS}/{name}"
    supervising = {s6.scanner(paths.SCANDIR), s6.supervisor(directory), s6.supervisor(f"{directory}/log")}
    return supervising | processes.ancestors(os.getpid())


def end(one: Marks, victims: Iterable[Process]) -> bool:
    """Ends these as its `finish` would, and says so; whether all of them are gone."""
    victims = list(victims)
    if one.spared or not victims:
        return not victims
    for process in victims:
        warn(f"service {one.name} left process {process.pid} behind ({called(process)}): ended")
    directory = f"{paths.SERVICEDIRS}/{one.name}"
    left = processes.end(victims, down_signal(directory), patience(directory))
    for process in left:
        warn(f"process {process.pid} of service {one.name} ({called(process)}) cannot be ended")
    return not left


def called(process: Process) -> str:
    """Its command line, as far as it is of use to people."""
    words = " ".join(processes.arguments(process.pid)) or process.name
    plain = "".join(letter if letter.isprintable() else "?" for letter in words)
    return plain if len(plain) <= 80 else f"{plain[:79]}…"  # noqa: PLR2004 - a line of a terminal


def down_signal(directory: str) -> signal.Signals:
    """The signal that stops the service, by name or number."""
    text = files.first_line(f"{directory}/down-signal").strip().upper()
    try:
        return signal.Signals(int(text)) if text.isdecimal() else signal.Signals[f"SIG{text.removeprefix('SIG')}"]
    except (KeyError, ValueError):
        return signal.SIGTERM


def patience(directory: str) -> float:
    """Seconds that it is given to stop."""
    text = files.first_line(f"{directory}/timeout-kill").strip()
    return int(text) / 1000 if text.isdecimal() and int(text) else _PATIENCE
