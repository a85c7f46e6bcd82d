"""drift: what was changed outside of migrations, one line for each path, as FORMAT.md describes changes.list.
drift discard PATH…: gives such changes up, and what was made by hand below these paths.
drift adopt PATH…: seals them as a layer of their own.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.format import changes as changes_format
from pyinfra_overlaymig.format.octal import escape_path, unescape_path
from pyinfra_overlaymig.format.paths import LIVE, RUN, UPPER
from pyinfra_overlaymig.runner import catch_up, drift, files, lock, package_manager, recovery, rooted, store, trees
from pyinfra_overlaymig.runner.say import Leave, attempt, invalid, say, usage, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.format.changes import Change

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
    found = [_entry(path) for path in paths]
    package_manager.await_done()
    return _discard(found) if what == "discard" else _adopt(found)


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


def _discard(paths: list[str]) -> int:
    from pyinfra_overlaymig.runner import services_follow, switch

    given_up = [changes_format.Change("C", "f", *("-",) * 6, escape_path(path)) for path in paths]
    drift.drop_at_next_switch(given_up)
    # As long as it is there, the next verb that writes looks after services.
    files.make_dirs(recovery.FOLLOW)
    switch.live()
    services_follow.follow(recovery.FOLLOW, ())
    files.drop(recovery.FOLLOW)
    say(f"given up: {len(paths)}")
    return 0


def _adopt(paths: list[str]) -> int:
    from pyinfra_overlaymig.runner import worker

    live = catch_up.live()
    found = drift.compared(live, sorted({entry for path in paths for entry in _below(live, path)}, key=os.fsencode))
    if not found.changes:
        raise invalid("nothing there differs from the generation", "system-migrate drift lists what does")
    from pyinfra_overlaymig.runner import adopt

    if why := adopt.unkeepable(found.changes):
        raise invalid(why, "leave it out, or undo that first (chattr -i -a)")
    return worker.run(f"{RUN}/adopt.log", lambda: _seal(tuple(found.changes)))


def _below(live: int, path: str) -> list[str]:
    """An entry of an upper, and all that lies in it."""
    top = f"{UPPER}/{live}/upper/{path}"
    return [path, *(f"{path}/{name}" for name, _ in trees.walk(top))] if files.plain_dir(top) else [path]


def _seal(changes: tuple[Change, ...]) -> int:
    from pyinfra_overlaymig.runner import adopt, as_before

    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    label = os.path.basename(unescape_path(changes[0].path)).lower()
    seen = as_before.look()
    if not attempt(lambda: adopt.adopt(label, changes)):
        if not attempt(lambda: recovery.recover(live=True)):
            raise Leave(20, "the drift was not adopted, and that was not taken back", "run: system-migrate recover")
        raise Leave(9, f"the drift was not adopted; {as_before.words(seen)}", "the reason is above")
    say(f"generation {store.current()} is running")
    return 0
