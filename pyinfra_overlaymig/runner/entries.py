"""The entries of an upper directory, and what the stack below shows at their places; contents.py reads files."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format.octal import escape_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OVERLAY = "trusted.overlay."
_OPAQUE = "trusted.overlay.opaque"
FIXED = "trusted.overlay.protattr"
"""What an overlay notes of `chattr +i` and `+a`, in its upper. In a layer it would mean nothing."""
_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
}


class Entry(NamedTuple):
    """One entry of a tree. ``kind``: of find(1), and `w`: whiteout; ``attributes`` and ``link``: as in changes.list."""

    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    links: int = 1
    inode: int = 0
    device: int = 0
    link: str = ""
    attributes: str = ""
    opaque: bool = False


def hides(entry: Entry, was: Entry | None) -> bool:
    """Whether a directory shows nothing of what the stack has below it."""
    return was is None or was.kind != "d" or entry.opaque


def attributes(path: str) -> tuple[str, bool]:
    """Extended attributes as getfattr -e hex has them, by commas, and whether the directory is opaque to an overlay."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return "", False
        raise
    if not names:
        return "", False
    found = [_attribute(path, name) for name in sorted(names) if name == FIXED or not name.startswith(_OVERLAY)]
    return ",".join(found), _OPAQUE in names and os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"


def _attribute(path: str, name: str) -> str:
    try:
        value = os.getxattr(path, name, follow_symlinks=False).hex()
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        value = ""
    escaped = escape_path(name).replace(",", "\\054").replace("=", "\\075")
    return f"{escaped}=0x{value}" if value else escaped


def entry_of(path: str, found: os.stat_result, extra: str = "", *, opaque: bool = False) -> Entry:
    """What lstat(2) found at ``path``."""
    mode = found.st_mode
    kind = _KINDS[stat.S_IFMT(mode)]
    link = ""
    if kind == "l":
        link = escape_path(os.readlink(path))
    elif kind == "c" and found.st_rdev == 0:
        kind = "w"
    return Entry(
        kind, mode & 0o7777, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_nlink, found.st_ino,
        found.st_rdev, link, extra, opaque,
    )  # fmt: skip


class Scan:
    """Both trees, as far as they were looked at. ``below`` has nothing where a directory above hides the stack.

    ``files``: what is no directory and yet to be looked at, and whether a directory above hides the stack there.
    Entries that go meanwhile are left out.
    """

    def __init__(self, upper: str, lower: str) -> None:
        self.upper = f"{upper}/"
        self.lower = f"{lower}/"
        self.above: dict[str, Entry] = {}
        self.below: dict[str, Entry] = {}
        self.files: list[tuple[str, bool]] = []

    def directories(self, check: Callable[[], None]) -> None:
        """Looks at all directories, and finds what else there is."""
        waiting = [("", False)]
        while waiting:
            here, fresh = waiting.pop()
            check()
            for entry in self._held(here):
                path = here + entry.name
                if not entry.is_dir(follow_symlinks=False):
                    self.files.append((path, fresh))
                elif (found := self.look(path, fresh=fresh)) is not None:
                    waiting.append((f"{path}/", fresh or hides(*found)))

    def _held(self, here: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.upper + here) as found:
                return list(found)
        except FileNotFoundError:
            if not here:
                raise
            return []

    def look(self, path: str, *, fresh: bool) -> tuple[Entry, Entry | None] | None:
        """Looks at one entry in both trees."""
        place = self.upper + path
        try:
            found = os.lstat(place)
            extra, opaque = attributes(place)
            one = self.above[path] = entry_of(place, found, extra, opaque=opaque)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if fresh:
            return one, None
        was = self._was(self.lower + path, one.kind)
        if was is not None:
            self.below[path] = was
        return one, was

    def _was(self, place: str, kind: str) -> Entry | None:
        try:
            found = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        # Attributes decide only between two of one kind.
        alike = _KINDS[stat.S_IFMT(found.st_mode)] == kind
        return entry_of(place, found, attributes(place)[0] if alike else "")

    def some(self, paths: set[str]) -> None:
        """Only these paths: directories among them are looked at, of the others is found what hides the stack there."""
        known = {"": False}
        for path in sorted(paths, key=os.fsencode):
            self.files.append((path, self._fresh(path.rpartition("/")[0], known)))

    def _fresh(self, directory: str, known: dict[str, bool]) -> bool:
        """Whether a directory of the upper, or one above it, hides the stack."""
        if directory not in known:
            fresh = self._fresh(directory.rpartition("/")[0], known)
            if not fresh:
                found = Scan(self.upper[:-1], self.lower[:-1]).look(directory, fresh=False)
                fresh = found is not None and hides(*found)
            known[directory] = fresh
        return known[directory]
