"""What lies in the upper and is nobody's work: caches, logs, who logged in, sockets of programs that have ended, and
directories that a rollback left. It is no drift that anybody has to decide about.

It stays where it is, and meets migrations as all else does; `drift --raw` lists it too.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import changes as changes_format
from pyinfra_overlaymig.format.octal import unescape_path
from pyinfra_overlaymig.format.paths import LIVE, MIGRATIONS, NOWHERE, OF_PACKAGES, is_below
from pyinfra_overlaymig.runner import files, overlap, sockets, store, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.format.changes import Change

_TOPS = ("var/cache", "var/log", "var/lib/apt/periodic", "var/lib/systemd/random-seed", "etc/.pwd.lock")
_NAMES = ("__pycache__",)
_SOMEBODYS = tuple(path.lstrip("/") for path in OF_PACKAGES)


def apart(found: Iterable[Change]) -> tuple[list[Change], int]:
    """What of ``found`` is somebody's, and how much of it is not."""
    found = list(found)
    left = [change for change in found if not is_nobodys(unescape_path(change.path))]
    if any(change.kind == "s" for change in left):
        listening = _listening()
        left = [one for one in left if one.kind != "s" or os.path.basename(unescape_path(one.path)) in listening]
    left = _but_left(left)
    return left, len(found) - len(left)


def is_nobodys(path: str) -> bool:
    """Whether what lies there is, whatever it is."""
    if path in overlap.BOOKKEEPING or any(is_below(path, top) for top in NOWHERE):
        return True
    if any(is_below(path, top) for top in _SOMEBODYS):
        return False
    return any(is_below(path, top) for top in _TOPS) or any(name in _NAMES for name in path.split("/"))


def _listening() -> set[str]:
    """The names of sockets in the running root that somebody is reached by; paths may be relative: names have to do."""
    device = os.stat(LIVE).st_dev
    return {os.path.basename(one.path) for one in sockets.bound() if one.device == device}


def _but_left(found: list[Change]) -> list[Change]:
    """Without directories of migrations that were rolled back, where nothing else is in them."""
    holding = {above for one in found if one.kind != "d" or one.op != "A" for above in trees.parents(one.path)}
    made = [one.path for one in found if one.kind == "d" and one.op == "A" and one.path not in holding]
    if not made:
        return found
    theirs = _directories_of_others()
    left: set[str] = set()
    # Those that somebody made hold the ones above.
    somebodys: set[str] = set()
    for path in sorted(made, key=os.fsencode, reverse=True):
        if path in theirs and path not in somebodys:
            left.add(path)
        else:
            somebodys.update(trees.parents(path))
    return [one for one in found if one.path not in left]


def _directories_of_others() -> set[str]:
    """Those that migrations made which are not part of the stack, escaped."""
    stack = store.stack()
    found: set[str] = set()
    for id in files.names(MIGRATIONS):
        if id not in stack:
            text = files.read(f"{MIGRATIONS}/{id}/changes.list")
            found.update(one.path for one in changes_format.parse_all(text) if one.kind == "d")
    return found
