"""Waits until services are ready: several at a time, each within its limit from when what it needs is ready."""

from __future__ import annotations

import os
import time

from pyinfra_overlaymig.format import paths, readiness
from pyinfra_overlaymig.runner import files, follow, processes, s6, services, store
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import warn, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LINES = 20


class Waiting:
    """One service that is waited for. To be made before it is told to start: deaths count from then on."""

    def __init__(self, name: str, seconds: float | None = None) -> None:
        self.name = name
        self.seconds = limit(name) if seconds is None else seconds
        self.place = services.linked(name)
        self.needs = services.needed(self.place)
        self.deadline: Deadline | None = None
        self.last_death = s6.deaths(self.place)[-1:]
        self.starts = 0
        self.process = 0
        self.again = 0.0
        """Seconds until the clock alone may change the answer."""

    def outcome(self) -> bool | None:
        """True when it is ready and stays so; False, said, when it will not be; None while that is open."""
        if not os.path.exists(self.place):
            warn(f"service {self.name} is not supervised")
            return False
        if self.deadline is None:
            self.deadline = Deadline(self.seconds)
        self.again = self.deadline.left()
        status = s6.read(self.place)
        if status and self._is_ready(status):
            return True
        why = self._why_not(status)
        if why:
            warn(f"service {self.name} {why}")
            return False
        return None

    def _is_ready(self, status: s6.Status) -> bool:
        if not status.up or not (status.ready or not self._tells()):
            return False
        left = self._settles() - age(status)
        self.again = min(self.again, max(left, 0.0))
        return left <= 0

    def _tells(self) -> bool:
        return os.path.isfile(f"{self.place}/{readiness.TELLS}")

    def _settles(self) -> float:
        begins = os.path.isfile(f"{self.place}/{readiness.BEGINS}")
        return readiness.settles(tells=self._tells(), begins=begins)

    def _why_not(self, status: s6.Status | None) -> str:
        if status and not status.up and (reason := files.first_line(f"{self.place}/{readiness.REASON}")):
            return f"stays down: {reason}"
        if self._died(status) >= readiness.DEATHS:
            return "died three times while it started"
        if status and status.stopped and not os.path.exists(f"{self.place}/down"):
            return "has given up"
        if self.deadline is not None and self.deadline.over():
            return f"was not ready within {self.seconds:g} s"
        return ""

    def _died(self, status: s6.Status | None) -> int:
        """How often since it is waited for: as s6 remembers, which it may be told not to, or as it was seen."""
        if status and status.pid and status.pid != self.process:
            self.process = status.pid
            self.starts += 1
        deaths = s6.deaths(self.place)
        known = deaths.index(self.last_death[0]) + 1 if self.last_death and self.last_death[0] in deaths else 0
        return max(len(deaths) - known, self.starts - 1)


def age(status: s6.Status) -> float:
    """Seconds that the process of a service lives, by the clock that nobody sets; 0 when it is not up."""
    process = processes.read(status.pid) if status.pid else None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.began if process else 0.0


def limit(name: str) -> float:
    """The seconds that its migration gives it to get ready."""
    return store.limits(services.layer(name)).ready_timeout(name)


def wait(waits: Iterable[Waiting], *, every: bool = True, aloud: bool = True) -> list[str]:
    """Waits for all of them, and answers which are not ready; not ``every``: for no more once one is not.

    ``aloud``: the end of what such a one wrote is shown.
    """
    left = {one.name: one for one in waits}
    failed: list[str] = []
    with s6.Watch(*(one.place for one in left.values() if os.path.isdir(one.place))) as watch:
        while left:
            before = len(left)
            _look(left, failed, aloud=aloud)
            if failed and not every:
                break
            if len(left) == before:
                watch.wait(min(one.again for one in left.values()))
    return failed


def _look(left: dict[str, Waiting], failed: list[str], *, aloud: bool) -> None:
    """Takes those out of ``left`` that need no more waiting."""
    for one in list(left.values()):
        one.again = float("inf")
        # What it needs comes first: it waits for that itself.
        if any(name in left for name in one.needs if name != one.name) and not _in_circle(one, left):
            continue
        outcome = _has_hope(one, failed) and one.outcome()
        if outcome is None:
            continue
        del left[one.name]
        if not outcome:
            failed.append(one.name)
            if aloud:
                output(one.name)


def _has_hope(one: Waiting, failed: list[str]) -> bool:
    """Whether what it needs can be ready; else, said, it will not be either."""
    lacking = [name for name in one.needs if name in failed]
    if lacking:
        warn(f"service {one.name} needs {lacking[0]}, which is not ready")
    return not lacking


def _in_circle(one: Waiting, left: dict[str, Waiting]) -> bool:
    seen: set[str] = set()
    new = set(one.needs)
    while new:
        seen |= new
        new = {below for name in new if name in left for below in left[name].needs} - seen
    return one.name in seen


def ready(name: str) -> bool:
    """Waits until ``name`` is ready, within its limit; False, with the end of its output shown, when it is not."""
    return not wait([Waiting(name)])


def output(name: str) -> None:
    """The end of what a service wrote, to standard error."""
    if os.path.isdir(services.linked(name)) and not os.path.isdir(f"{services.linked(name)}/log"):
        warn("it has no log: what it wrote is where s6-svscan writes to, the machine's console")
        return
    try:
        with open(f"{paths.LOGS}/{name}/current", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            last = [follow.readable(line) for line in file.read().rstrip(b"\n").split(b"\n")[-_LINES:]]
    except FileNotFoundError:
        last = [""]
    if last == [""]:
        warn("it wrote nothing")
        return
    warn("its last output:")
    write(2, "".join(f"    {line}\n" for line in last))


def late() -> list[str]:
    """The generation's services that do not get ready, each within its limit once those that it needs are."""
    return wait([Waiting(name) for name in expected()], aloud=False)


def expected() -> list[str]:
    """The services that have to get ready at a boot.

    Those of the base count once they were ready on this machine: a layer may be what keeps them from it, but no other
    generation helps one that never was. Over the base alone none does.
    """
    if not store.stack():
        return []
    known = files.lines(paths.BASE_SERVICES)
    return [
        name
        for name in services.order()
        # One that is down by its own wish is as it should be.
        if not services.is_down_by_wish(name) and (services.layer(name) != services.BASE or name in known)
    ]


def remember() -> None:
    """Notes which services of the base are ready; one that was noted stays so."""
    known = set(files.lines(paths.BASE_SERVICES))
    new = {name for name in services.order() if name not in known and services.is_of_image(name) and _is_ready(name)}
    if new:
        files.write_file(paths.BASE_SERVICES, "".join(f"{name}\n" for name in sorted(known | new)))


def _is_ready(name: str) -> bool:
    status = s6.read(services.linked(name))
    if status is None:
        return False
    tells = os.path.isfile(f"{services.linked(name)}/{readiness.TELLS}")
    return readiness.is_ready(up=status.up, told=status.ready, tells=tells)
