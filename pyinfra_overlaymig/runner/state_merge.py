"""A state path that no migration ever declared, of which /data/state has a directory all the same: what holds another
state path or a service's log, or what somebody put there. It begins as what the stack and that directory have.

What is in both is the directory's. Asked are the records, of migrations that were rolled back too: what they declared
was state, and goes on as it is.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import FormatError
from pyinfra_overlaymig.format.paths import LOGS, MIGRATIONS, STATE, is_below
from pyinfra_overlaymig.runner import copies, files, store, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def declared() -> set[str]:
    """All state paths that any recorded migration has, or had."""
    found: set[str] = set()
    for id in files.names(MIGRATIONS):
        try:
            one = store.record(id)
        except FormatError:
            continue
        found.update(one.state if one else ())
    return found


def begin(shown: str, path: str, upper: str, now: Iterable[str]) -> bool:
    """Fills ``upper`` where nobody has declared ``path``, nor what holds it; false where somebody has.

    ``now``: what the current generation has, so that records need not be read.
    """
    if any(is_below(path, one) for one in now):
        return False
    known = declared()
    if any(is_below(path, one) for one in known):
        return False
    fill(shown, path, upper, known)
    return True


def fill(shown: str, path: str, upper: str, known: set[str]) -> None:
    """Makes ``upper``, to be laid over the directory in /data/state, of what ``shown`` has and that lacks."""
    holders = {f"/{above}" for one in (*known, f"{LOGS[len(STATE) :]}/*") for above in trees.parents(one[1:])}
    _Filling(known, holders, copies.Copy()).directory(shown, path, upper)


class _Filling:
    """``known``: what is somebody's own state below; ``holders``: what is only there to hold it."""

    def __init__(self, known: set[str], holders: set[str], copy: copies.Copy) -> None:
        self.known = known
        self.holders = holders
        self.copy = copy

    def directory(self, shown: str, path: str, upper: str) -> None:
        """A directory that both have: a holder, or an empty one, is as the stack has it, another one as it is."""
        empty = {"lost+found"}.issuperset(files.names(STATE + path))
        for entry in trees.entries(shown):
            here, there = f"{path}/{entry.name}", f"{STATE}{path}/{entry.name}"
            if not files.there(there):
                self.copy.tree(entry.path, f"{upper}/{entry.name}")
            elif here not in self.known and files.plain_dir(there) and files.plain_dir(entry.path):
                os.mkdir(f"{upper}/{entry.name}")
                self.directory(entry.path, here, f"{upper}/{entry.name}")
        as_shown = empty or path in self.holders
        copies.take_metadata(shown if as_shown else STATE + path, upper, times=True, overlay=False)
