"""drift: what was changed outside of migrations, one line for each path, as FORMAT.md describes changes.list.
drift discard PATH…: gives such changes up, and what was made by hand below these paths.
drift adopt PATH…: seals them as a layer of their own.
Both take --packages, which stands for all that belongs to packages that were installed or removed by hand.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.format import changes as changes_format
from pyinfra_overlaymig.format.octal import escape_path, unescape_path
from pyinfra_overlaymig.format.paths import LIVE, RUN, UPPER
from pyinfra_overlaymig.runner import (
    catch_up,
    drift,
    files,
    lock,
    package_manager,
    packages,
    recovery,
    rooted,
    store,
    trees,
)
from pyinfra_overlaymig.runner.say import Leave, attempt, invalid, refused, say, usage, warn, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.format.changes import Change

_PACKAGES = "--packages"
_IGNORED = (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    if not arguments:
        return _show()
    what, *paths = arguments
    if what not in ("discard", "adopt"):
        raise usage(f"drift knows no {what}", "system-migrate drift, drift discard PATH…, or drift adopt PATH…")
    if not paths:
        raise usage(f"drift {what} takes paths", f"system-migrate drift {what} /etc/motd")
    store.layout()
    lock.take("drift")
    recovery.recover(live=True)
    # Before anything is looked at: it changes what is drift.
    package_manager.await_done()
    named, theirs = _choose(what, paths)
    return _discard(named, theirs) if what == "discard" else _adopt(named, theirs)


def _choose(what: str, paths: list[str]) -> tuple[list[str], packages.Set]:
    """The entries of the live upper that are named, and what is the packages', where that is asked for."""
    named = [_entry(path) for path in paths if path != _PACKAGES]
    theirs = packages.changed_by_hand()
    if _PACKAGES in paths:
        if not theirs.names:
            raise invalid("no package was installed or removed by hand", "system-migrate drift lists what was changed")
        return named, theirs
    if theirs.splits(_below(named)):
        raise refused(
            f"that is a part of what belongs to packages that were installed or removed by hand: {theirs.who}",
            f"system-migrate drift {what} --packages takes all of it ({len(theirs.paths)} files)",
        )
    return named, packages.NONE


def _show() -> int:
    """Compares the whole upper with the stack. Without a lock: a switch meanwhile shows in the next call."""
    live = catch_up.live()
    if not files.plain_dir(f"{UPPER}/{live}/upper"):
        return 0
    try:
        found = drift.compared(live)
    except Leave:
        # A switch may have taken it away under this.
        if catch_up.live() == live:
            raise
        return _show()
    write(1, changes_format.text(found.changes))
    if theirs := packages.changed_by_hand().who:
        warn(f"packages were installed or removed by hand: {theirs}")
        write(2, "  hint: keep all that is theirs, or give it up: system-migrate drift adopt|discard --packages\n")
    return 0


def _entry(path: str) -> str:
    """The entry of the live upper that ``path`` is in the running root, whose links are followed; leaves with 4 where
    there is none. So no path leads out of the upper.
    """
    above, _, name = path.rstrip("/").rpartition("/")
    found = f"{rooted.resolve(LIVE, f'/{above}').removeprefix(LIVE)}/{name}".lstrip("/")
    if name in ("", ".", "..") or not files.there(f"{UPPER}/{catch_up.live()}/upper/{found}"):
        raise invalid(f"/{path.lstrip('/')} is not drift", "system-migrate drift lists what is")
    return found


def _given_up(path: str, op: str = "C", kind: str = "f") -> Change:
    return changes_format.Change(op, kind, *("-",) * 6, escape_path(path))


def _discard(named: list[str], theirs: packages.Set) -> int:
    from pyinfra_overlaymig.runner import services_follow, switch

    given_up = [_given_up(path) for path in (*named, *theirs.paths)]
    given_up += [_given_up(path, "M", "d") for path in theirs.directories]
    drift.drop_at_next_switch(given_up)
    # As long as it is there, the next verb that writes looks after services.
    files.make_dirs(recovery.FOLLOW)
    switch.live()
    services_follow.follow(recovery.FOLLOW, ())
    files.drop(recovery.FOLLOW)
    say(f"given up: {len(given_up)}")
    return 0


def _adopt(named: list[str], theirs: packages.Set) -> int:
    from pyinfra_overlaymig.runner import worker

    entries = _below(named) | theirs.paths | theirs.directories
    found = drift.compared(catch_up.live(), sorted(entries, key=os.fsencode))
    if not found.changes:
        raise invalid("nothing there differs from the generation", "system-migrate drift lists what does")
    from pyinfra_overlaymig.runner import adopt

    if why := adopt.unkeepable(found.changes):
        raise invalid(why, "leave it out, or undo that first (chattr -i -a)")
    label = theirs.names[0] if theirs.names else os.path.basename(unescape_path(found.changes[0].path)).lower()
    return worker.run(f"{RUN}/adopt.log", lambda: _seal(label, tuple(found.changes)))


def _below(named: list[str]) -> set[str]:
    """Entries of the live upper, and all that lies in them."""
    upper = f"{UPPER}/{catch_up.live()}/upper"
    holding = [path for path in named if files.plain_dir(f"{upper}/{path}")]
    return {*named, *(f"{path}/{name}" for path in holding for name, _ in trees.walk(f"{upper}/{path}"))}


def _seal(label: str, changes: tuple[Change, ...]) -> int:
    from pyinfra_overlaymig.runner import adopt, as_before

    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    seen = as_before.look()
    if not attempt(lambda: adopt.adopt(label, changes)):
        if not attempt(lambda: recovery.recover(live=True)):
            raise Leave(20, "the drift was not adopted, and that was not taken back", "run: system-migrate recover")
        raise Leave(9, f"the drift was not adopted; {as_before.words(seen)}", "the reason is above")
    say(f"generation {store.current()} is running")
    return 0
