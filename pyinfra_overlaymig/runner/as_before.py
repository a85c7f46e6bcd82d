"""Whether a machine that was taken back is as it was: looked at before anything was done to it, and once more after.

What is said of it is what was seen: the generation that runs, the services that were up, the mounts.
"""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import files, mountinfo, readiness, s6, services, store, supervision
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import say, warn

_UP_WITHIN = 2.0
"""Seconds for one that was up and not ready, and so tells nothing more."""

Mounts = frozenset[tuple[str, str]]


class Seen(NamedTuple):
    """A machine at one moment. ``services``: those that were up, and whether they were ready."""

    generation: int
    services: dict[str, bool]
    mounts: Mounts


def look() -> Seen:
    """The machine as it is now."""
    states = {name: s6.read(services.linked(name)) for name in files.names(paths.SCANDIR) if not name.startswith(".")}
    up = {name: status.ready for name, status in states.items() if status and status.up and status.wanted_up}
    return Seen(store.current(), up, _mounts())


def _mounts() -> Mounts:
    """Where something is mounted in the running root, and what of its file system; not the runner's own."""
    own = (f"{paths.RUN}/", paths.OLD)
    return frozenset((one.place, one.root) for one in mountinfo.read(1) if not one.place.startswith(own))


def words(seen: Seen, *, whole: bool = True) -> str:
    """What is said of a machine that was taken back; what is not as it was ``seen`` is named.

    Not ``whole``: that services are not up was said.
    """
    _start_again(seen.services)
    lacking = [*_generation(seen.generation), *_services(seen.services, wait=whole), *_places(seen.mounts)]
    for one in lacking:
        warn(f"not as before: {one}")
    if whole and not lacking:
        return "the machine is as it was before"
    return f"generation {store.current()} runs again, and what is not as it was before is named above"


def _start_again(before: dict[str, bool]) -> None:
    """Those that were up and have been told to stop since: by a health check, or because they gave up meanwhile."""
    for name in before:
        status = s6.read(services.linked(name))
        if status and not status.wanted_up:
            say(f"starting service {name} again")
            supervision.start(name)


def _generation(before: int) -> list[str]:
    running, current = store.running(), store.current()
    return [] if running == current == before else [f"generation {running} runs and {current} is current, not {before}"]


def _services(before: dict[str, bool], *, wait: bool) -> list[str]:
    """Those that were up and are not; they are given the time that they have to get ready."""
    down = [name for name, ready in before.items() if not _is_back(name, ready=ready)]
    if down and wait:
        readiness.wait([readiness.Waiting(name) for name in down if before[name]], aloud=False)
        for name in down:
            if os.path.isdir(services.linked(name)):
                s6.until(partial(_is_back, name, ready=False), Deadline(_UP_WITHIN), services.linked(name))
        down = [name for name in down if not _is_back(name, ready=before[name])]
    return [f"service {name} is not up" for name in down]


def _is_back(name: str, *, ready: bool) -> bool:
    status = s6.read(services.linked(name))
    return bool(status and (status.ready if ready else status.up))


def _places(before: Mounts) -> list[str]:
    now = _mounts()
    gone = [f"{place} is not mounted as it was" for place, _ in sorted(before - now)]
    return gone + [f"{place} is mounted, which it was not" for place, _ in sorted(now - before)]
