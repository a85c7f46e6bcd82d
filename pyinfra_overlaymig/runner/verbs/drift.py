"""drift [--json]: what was changed outside of migrations, as a table, but for what is nobody's; --raw: with that too,
one line for each path, as FORMAT.md describes changes.list.
drift discard PATH…: gives such changes up, and what was made by hand below these paths.
drift adopt PATH…: seals them as a layer of their own.
Both take --packages, which stands for all that belongs to packages that were installed or removed by hand, and --all.
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
    drift_told,
    files,
    lock,
    nobodys,
    package_manager,
    packages,
    recovery,
    rooted,
    store,
    trees,
)
from pyinfra_overlaymig.runner.say import Leave, answer, attempt, invalid, refused, say, usage, warn, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.format.changes import Change

_PACKAGES, _ALL = "--packages", "--all"
_SHOWN = ("--json", "--raw")
_IGNORED = (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    if not arguments or arguments in ([one] for one in _SHOWN):
        return _show("".join(arguments))
    what, *paths = arguments
    if what not in ("discard", "adopt"):
        raise usage(
            f"drift knows no {what}", "system-migrate drift [--json|--raw], drift discard PATH…, drift adopt PATH…"
        )
    if not paths:
        raise usage(f"drift {what} takes paths, or --all", f"system-migrate drift {what} /etc/motd")
    if _ALL in paths and len(paths) > 1:
        raise usage(f"drift {what} --all takes no paths besides", f"system-migrate drift {what} --all")
    store.layout()
    lock.take("drift")
    recovery.recover(live=True)
    # Before anything is looked at: it changes what is drift.
    package_manager.await_done()
    if paths == [_ALL]:
        return _every(what)
    named, theirs = _choose(what, paths)
    return _discard([_given_up(path) for path in named], theirs) if what == "discard" else _adopt(_below(named), theirs)


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


def _every(what: str) -> int:
    """All that `drift` shows, and all that is packages'."""
    live = catch_up.live()
    found = nobodys.apart(drift.compared(live).changes)[0] if files.plain_dir(f"{UPPER}/{live}/upper") else []
    theirs = packages.changed_by_hand()
    if not found and not theirs.names:
        say("there is no drift")
        return 0
    if what == "adopt":
        return _adopt({unescape_path(change.path) for change in found}, theirs)
    return _discard([_given_up(unescape_path(one.path), one.op, one.kind) for one in found], theirs)


def _show(how: str) -> int:
    """Compares the whole upper with the stack. Without a lock: a switch meanwhile shows in the next call."""
    live = catch_up.live()
    if not files.plain_dir(f"{UPPER}/{live}/upper"):
        answer(drift_told.document([]) if how == "--json" else "")
        return 0
    try:
        found = drift.compared(live)
    except Leave:
        # A switch may have taken it away under this.
        if catch_up.live() == live:
            raise
        return _show(how)
    if how == "--raw":
        answer(changes_format.text(found.changes))
        return 0
    shown, left = nobodys.apart(found.changes)
    answer(drift_told.document(shown) if how else drift_told.table(shown, left))
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


def _discard(named: list[Change], theirs: packages.Set) -> int:
    from pyinfra_overlaymig.runner import services_follow, switch

    given_up = [*named, *map(_given_up, theirs.paths)]
    given_up += [_given_up(path, "M", "d") for path in theirs.directories]
    drift.drop_at_next_switch(given_up)
    # As long as it is there, the next verb that writes looks after services.
    files.make_dirs(recovery.FOLLOW)
    switch.live()
    services_follow.follow(recovery.FOLLOW, ())
    files.drop(recovery.FOLLOW)
    say(f"given up: {len(given_up)}")
    return 0


def _adopt(named: set[str], theirs: packages.Set) -> int:
    from pyinfra_overlaymig.runner import worker

    entries = named | theirs.paths | theirs.directories
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
