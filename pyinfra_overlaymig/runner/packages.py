"""Debian packages that were installed, upgraded or removed by hand: what of the drift is theirs, as a whole.

Kept or given up in part, files and dpkg's database would say different things. The database is one file for all of
them: so they are one set, its parts are those of dpkg's lists.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format.octal import unescape_path
from pyinfra_overlaymig.format.paths import LAYERS, LIVE, UPPER
from pyinfra_overlaymig.runner import catch_up, drift, files, rooted, store, trees
from pyinfra_overlaymig.runner.say import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pyinfra_overlaymig.format.changes import Change

_INFO = "var/lib/dpkg/info"
_STATUS = "var/lib/dpkg/status"
_DATABASES = ("var/lib/dpkg", "var/lib/apt/extended_states", "var/cache/debconf", "etc/ld.so.cache")
_ALTERNATIVES = "var/lib/dpkg/alternatives"
_SHOWN = 8


class Set(NamedTuple):
    """``names`` of packages with their architecture where dpkg has it; ``paths``: entries of the upper, no directories.

    ``directories``: those that came with them, and may hold what did not.
    """

    names: tuple[str, ...]
    paths: frozenset[str]
    directories: frozenset[str]

    def splits(self, paths: Iterable[str]) -> bool:
        """Whether ``paths`` have some of it, and not all."""
        met = self.paths.intersection(paths)
        return bool(met) and met != self.paths

    @property
    def who(self) -> str:
        """Their names, as far as they are of use to people."""
        more = len(self.names) - _SHOWN
        return " ".join(self.names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


NONE = Set((), frozenset(), frozenset())


def changed_by_hand() -> Set:
    """All of it in the running root."""
    live = catch_up.live()
    top = f"{UPPER}/{live}/upper"
    infos = [f"{_INFO}/{name}" for name in files.names(f"{top}/{_INFO}")] if files.plain_dir(f"{top}/{_INFO}") else []
    if not infos:
        return NONE
    found = drift.compared(live, infos)
    changed = {change.path for change in found.changes} - {*found.times}
    named = (os.path.basename(unescape_path(path)) for path in changed)
    # `format` and the like are no package's.
    names = tuple(sorted({name.rpartition(".")[0] for name in named if "." in name}))
    return _set(live, names) if names else NONE


def _set(live: int, names: tuple[str, ...]) -> Set:
    top = f"{UPPER}/{live}/upper"
    paths, directories = set(), set()
    for path in {*_listed(names), *_linked(top)}:
        found = trees.lstat(f"{top}/{path}")
        if found is not None and stat.S_ISDIR(found.st_mode):
            directories.add(path)
        elif found is not None:
            paths.add(path)
    for database in _DATABASES:
        if files.plain_dir(f"{top}/{database}"):
            below = ((f"{database}/{path}", found) for path, found in trees.walk(f"{top}/{database}"))
            paths.update(path for path, found in below if not stat.S_ISDIR(found.st_mode))
        elif files.there(f"{top}/{database}"):
            paths.add(database)
    # Of those that the generation has too, what is drift is somebody else's.
    fresh = (change for change in drift.compared(live, directories).changes if change.op == "A")
    return Set(names, frozenset(paths), frozenset(unescape_path(change.path) for change in fresh))


def _listed(names: Collection[str]) -> Iterator[str]:
    """What dpkg lists of them, in the running root and below it, by the names that it has there without links."""
    tops = (LIVE, *(f"{LAYERS}/{layer}" for layer in reversed(store.stack())), "")
    resolved: dict[str, str] = {}
    for name in names:
        # The one of the running root, and the topmost below: what an upgrade has removed is only there.
        lists = [f"{top}/{_INFO}/{name}.list" for top in tops]
        for line in {line for one in lists for line in files.lines(one)}:
            above, _, last = line.rpartition("/")
            if above not in resolved:
                resolved[above] = rooted.resolve(LIVE, above).removeprefix(LIVE)
            if last not in ("", "."):
                yield f"{resolved[above]}/{last}".lstrip("/")


def _linked(top: str) -> Iterator[str]:
    """The links of alternatives that changed: a file of update-alternatives has them line by line, and its slaves'."""
    if not files.plain_dir(f"{top}/{_ALTERNATIVES}"):
        return
    for name in files.names(f"{top}/{_ALTERNATIVES}"):
        yield f"etc/alternatives/{name}"
        for line in files.lines(f"{LIVE}/{_ALTERNATIVES}/{name}"):
            if line.startswith("/"):
                above, _, last = line.rpartition("/")
                yield f"{rooted.resolve(LIVE, above).removeprefix(LIVE)}/{last}".lstrip("/")
            elif line and not line.isdecimal() and "/" not in line:
                yield f"etc/alternatives/{line}"


def tell_hidden(layers: Iterable[str]) -> None:
    """Names those of ``layers``, which came or went, whose packages dpkg's database does not tell as they are now: it
    was changed by hand, and drift stays.
    """
    if not files.there(f"{UPPER}/{catch_up.live()}/upper/{_STATUS}"):
        return
    theirs = [one for one in sorted(layers) if any(change.path == _STATUS for change in drift.changes_of(one))]
    if theirs:
        remedy = "--packages" if changed_by_hand().names else f"/{_STATUS}"
        warn(
            f"dpkg's database was changed by hand and stays so: of the packages of {' '.join(theirs)} it says what was"
            f" before; system-migrate drift discard {remedy} gives the generation's own back"
        )


def whole(conflicts: tuple[Change, ...], one: Set) -> tuple[Change, ...]:
    """``conflicts``, and with some of the set all of it, in the order of changes.list."""
    if not one.paths.intersection(unescape_path(change.path) for change in conflicts):
        return conflicts
    found = drift.compared(catch_up.live(), sorted(one.paths | one.directories, key=os.fsencode))
    known = {change.path for change in conflicts}
    more = (change for change in found.changes if change.path not in known)
    return tuple(sorted((*conflicts, *more), key=lambda change: os.fsencode(change.path)))


def apart(every: tuple[Change, ...], conflicts: tuple[Change, ...]) -> list[Change]:
    """``every`` change to be given up: of directories that are no conflict themselves, what else they hold stays."""
    met = {change.path for change in conflicts}
    return [one._replace(op="M") if one.kind == "d" and one.path not in met else one for one in every]
