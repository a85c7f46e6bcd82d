"""The live switch: the current generation becomes the running root, in one pivot_root(2), under all running processes.

Order, and what a kill leaves:
  upper cloned        a directory that `upper/live` does not name: swept by the next switch
  new root assembled  mounts under /run/system-migrate/new in the base view, noted in /run/system-migrate/pivot
  standstill          its processes stand still; the kernel lets them go when this process dies
  pivot_root          the new root runs; the old one hangs at /dev/.system-migrate.old
  mounts moved, old root detached; drift caught up; `upper/live` and `running` written; the note removed
  old upper removed   swept by the next switch, or recovery
The note names the new root's mount: where that is the running root, `settle` goes on, else it takes it down.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, nullcontext

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.format.paths import BASE, LIVE, OLD, RUN, UPPER
from pyinfra_overlaymig.runner import (
    carry,
    catch_up,
    drift,
    files,
    leftovers,
    linux,
    mountinfo,
    mounts,
    owners,
    renumbered,
    store,
)
from pyinfra_overlaymig.runner.say import attempt, say, unable, warn
from pyinfra_overlaymig.runner.standstill import Standstill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NEW = f"{RUN}/new"
_NOTE = f"{RUN}/pivot"
_LATE = 2.0
"""Seconds that commands which were being forked at the pivot may take to end before they are named."""


def live() -> None:
    """Makes the current generation the running root."""
    settle()
    before = catch_up.live()
    to = before + 1
    sweep(before - 1)
    n = store.current()
    if not store.whole(n):
        raise unable(f"generation {n} cannot be assembled", "system-migrate rollback to one that is whole")
    seen = _clone(before, to)
    mounts.mount_stack(f"{RUN}/stack", NEW, store.stack(), f"{UPPER}/{to}/upper", f"{UPPER}/{to}/work")
    carry.carry(NEW)
    files.make_dirs(NEW + OLD)
    old = _mount_at("/", 1)
    note = f"mount {_mount_at(NEW)}\nfrom {before}\nto {to}\ngeneration {n}\n"
    files.write_file(_NOTE, note)
    _pivot(before, to, seen)
    late = _wait_for_late(old)
    settle()
    # Each clone is one more name of every file: postfix and cron take none that has several.
    sweep(before if late else None)


def _clone(before: int, to: int) -> catch_up.Listing:
    """The upper of the next root: the drift of the one before, but for what is to be given up, or hides a change."""
    files.make_dirs(NEW)
    catch_up.clone(before, to)
    seen = catch_up.listing(to)
    catch_up.remember(seen)
    drift.release(before, to)
    drift.change(to)
    return seen


def _pivot(before: int, to: int, seen: catch_up.Listing) -> None:
    """While all of the root stands still: a last look at what changed since the clone, and the pivot."""
    catch_up.prepare_live(to)
    renumbered.note()
    with _stand_still() as held:
        catch_up.repeat(before, to, seen, NEW)
        with _in(LIVE):
            linux.pivot_root(BASE + NEW, BASE + NEW + OLD)
        # At once: what is written from here on lies in the new upper, and has to be there after a loss of power.
        catch_up.set_live(to)
        carry.complete()
    if held is not None:
        say(f"the machine stood still for {held.milliseconds:.1f} ms")
        for one in held.free:
            warn(f"process {one.pid} did not stand still: {one.why}")


@contextmanager
def _stand_still() -> Iterator[Standstill | None]:
    """At boot nothing runs yet that could."""
    if _is_booting():
        with nullcontext() as nothing:
            yield nothing
        return
    with Standstill() as held:
        yield held


def _is_booting() -> bool:
    return not files.there(f"{RUN}/running")


@contextmanager
def _in(root: str) -> Iterator[None]:
    """This process has the root ``root`` meanwhile."""
    view = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chroot(root)
        try:
            yield
        finally:
            os.fchdir(view)
            os.chroot(".")
    finally:
        os.close(view)


def _mount_at(place: str, pid: int | str = "self") -> int:
    found = mountinfo.at(place, pid)
    if found is None:
        raise unable(f"nothing is mounted at {place}", "boot the machine through system-migrate boot")
    return found.id


def _wait_for_late(old: int) -> bool:
    """Waits for processes that were being forked when the root was pivoted: the kernel moves those it can see, and a
    half-made child is not one of them. Commands are over in no time; what stays longer is named. Whether any does.
    """
    until = time.monotonic() + _LATE
    while (left := carry.processes_on(old)) and time.monotonic() < until:
        # They are no children of this process, and which ones they are changes.
        time.sleep(0.02)
    for pid in left:
        name = files.first_line(f"/proc/{pid}/comm")
        warn(f"{name} (process {pid}) stays on the root before, until it is restarted")
    return bool(left)


def settle() -> None:
    """What follows the pivot; or, where none took place, takes what was assembled for it down. Idempotent."""
    note = dict(lines.pairs(files.read(_NOTE)))
    pivoted = bool(note) and _mount_at("/", 1) == int(note["mount"])
    if pivoted:
        before, to = int(note["from"]), int(note["to"])
        catch_up.set_live(to)
        carry.complete()
        carry.detach()
        catch_up.repeat(before, to, catch_up.remembered(), f"{LIVE}/.")
        carry.settle_state()
        renumbered.settle()
        store.set_running(int(note["generation"]))
        files.drop(f"{UPPER}/change")
    while mountinfo.is_mount(NEW):
        linux.umount(NEW, linux.MNT_DETACH)
    # The place for the old root, where it came to no pivot.
    carry.detach()
    files.drop(_NOTE)
    if pivoted and not attempt(owners.follow_all):
        # A service whose state this is looks again before it starts, and stays down where it cannot be done.
        warn("not all that is in state has followed the names of its owners")


def sweep(kept: int | None = None) -> None:
    """Drops uppers that are neither live nor ``kept``: of a root before that processes are still in."""
    for name in files.names(UPPER):
        if name.isdecimal() and int(name) not in (catch_up.live(), kept):
            leftovers.give_up(f"{UPPER}/{name}")
