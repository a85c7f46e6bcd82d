"""Where drift and changes meet: one would hide the other. Decided from names and kinds alone, before anything is
read.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format.octal import escape_path
from pyinfra_overlaymig.runner import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.format.changes import Change

BOOKKEEPING = (
    *("var/lib/dpkg/status-old", "var/lib/dpkg/available-old", "var/lib/dpkg/diversions-old"),
    *("var/lib/dpkg/statoverride-old", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock"),
    *("var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old", "var/cache/debconf/passwords.dat-old"),
)
"""What dpkg and debconf have for themselves: locks, and what databases were before. It says nothing of packages."""


class Drifted(NamedTuple):
    """An entry of an upper: its escaped path; of a directory that hides nothing, its metadata, else nothing."""

    path: str
    directory: tuple[str, str, str] | None = None


def meeting(upper: str, changes: Iterable[Change]) -> list[str]:
    """The paths, relative and as they are, of the entries of ``upper`` that meet one of ``changes``."""
    if trees.lstat(upper) is None:
        return []
    paths: dict[str, str] = {}
    entries = []
    for path, found in trees.walk(upper):
        name = escape_path(path)
        paths[name] = path
        entries.append(_drifted(f"{upper}/{path}", name, found))
    return [paths[name] for name in meet(entries, changes)]


def _drifted(place: str, name: str, found: os.stat_result) -> Drifted:
    if not stat.S_ISDIR(found.st_mode) or trees.is_opaque(place):
        return Drifted(name)
    return Drifted(name, (f"{stat.S_IMODE(found.st_mode):o}", str(found.st_uid), str(found.st_gid)))


def meet(entries: Iterable[Drifted], changes: Iterable[Change]) -> list[str]:
    """Of ``entries`` those that meet a change: at its path, below something that is no directory any more, or that
    shows nothing of what was there, or above it without being one. A directory meets another one only in its metadata.
    """
    directories: dict[str, tuple[str, str, str]] = {}
    others: set[str] = set()
    hiding: set[str] = set()
    holds: set[str] = set()
    for change in changes:
        if change.kind == "d":
            directories[change.path] = (change.mode, change.uid, change.gid)
            if change.op == "C":
                hiding.add(change.path)
        else:
            others.add(change.path)
        holds.update(trees.parents(change.path))
    return [one.path for one in entries if _meets(one, directories, others, hiding, holds)]


def _meets(
    one: Drifted, directories: dict[str, tuple[str, str, str]], others: set[str], hiding: set[str], holds: set[str]
) -> bool:
    path = one.path
    if path in others or any(above in others or above in hiding for above in trees.parents(path)):
        return True
    if one.directory is None:
        return path in directories or path in holds
    return path in hiding or (path in directories and directories[path] != one.directory)
