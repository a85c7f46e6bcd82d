"""Trees of files: walking, measuring, linking and removing them, as find, du, cp -al and rm -rf would.

What may be ignored is the same for all of them: what goes while it is looked at. Every other error
stops. How an entry is copied is in copies.py, how a tree is removed in removal.py; this is their one door.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from pyinfra_overlaymig.runner import copies, reach
from pyinfra_overlaymig.runner.copies import copy_entry as copy_file
from pyinfra_overlaymig.runner.copies import copy_tree, take_metadata
from pyinfra_overlaymig.runner.removal import remove_tree

__all__ = [
    "copy_file",
    "copy_tree",
    "disk_usage",
    "entries",
    "forget_opaque",
    "forget_origin",
    "is_opaque",
    "is_whiteout",
    "link_entry",
    "link_tree",
    "lstat",
    "parents",
    "remove_empty",
    "remove_tree",
    "take_metadata",
    "walk",
]
OPAQUE = "trusted.overlay.opaque"
_ORIGIN = "trusted.overlay.origin"
_TRIES = 100


def is_whiteout(found: os.stat_result) -> bool:
    """What an overlay has in its upper for an entry that is deleted."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: str) -> bool:
    """A directory of an upper that hides all that the layers below have there."""
    try:
        with reach.entry(path) as place:
            return os.getxattr(place, OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.ENOENT):
            return False
        raise


def forget_origin(path: str) -> None:
    """Of an upper that will be mounted anew, before a name of it is removed behind which the stack shows again.

    An overlay notes which file of the stack one of its upper was copied from. It takes two names for the same file
    where one is of the upper, copied from what the other one shows, and says ESTALE of whichever comes second.
    """
    _forget(path, _ORIGIN)


def forget_opaque(path: str) -> None:
    """A directory of an upper shows what the layers below have there, again."""
    _forget(path, OPAQUE)


def _forget(path: str, name: str) -> None:
    try:
        with reach.entry(path) as place:
            os.removexattr(place, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.ENOENT):
            raise


def lstat(path: str) -> os.stat_result | None:
    """What is at ``path`` itself, None when nothing is."""
    try:
        with reach.entry(path) as place:
            return os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None


def below(top: str, path: str) -> str:
    """Where the relative ``path`` lies; the top itself is called `.` or nothing."""
    return top if path in ("", ".") else f"{top}/{path}"


def parents(path: str) -> Iterator[str]:
    """The directories above a relative path, the nearest first, without the top."""
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path


def entries(path: str) -> list[os.DirEntry[str]]:
    """What a directory holds; nothing when it is gone by now, or something else is in its place."""
    try:
        with os.scandir(path) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def walk(top: str, enter: Callable[[str], bool] | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below ``top`` by its relative path, a directory before what it holds.

    ``enter`` may keep out of directories. A ``top`` that is missing is an error: nothing must be read as empty.
    """
    os.lstat(top)
    waiting = [""]
    while waiting:
        here = waiting.pop()
        for name, found in looked_at(below(top, here)):
            path = f"{here}/{name}" if here else name
            yield path, found
            if stat.S_ISDIR(found.st_mode) and (enter is None or enter(path)):
                waiting.append(path)


def looked_at(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """What a directory holds, by name; nothing when it is gone by now."""
    with reach.directory(path) as place:
        for entry in entries(place):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.name, found


def disk_usage(path: str, *, apparent: bool = False) -> int:
    """Bytes that a tree takes on its own file system, each inode once; ``apparent``: sizes, as du -b adds them."""
    top = lstat(path)
    if top is None:
        return 0
    total = top.st_size if apparent else top.st_blocks * 512
    if not stat.S_ISDIR(top.st_mode):
        return total
    seen: set[int] = set()
    other: set[str] = set()
    for name, found in walk(path, lambda name: name not in other):
        if found.st_dev != top.st_dev:
            other.add(name)
            continue
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            if found.st_ino in seen:
                continue
            seen.add(found.st_ino)
        total += found.st_size if apparent else found.st_blocks * 512
    return total


def link_tree(source: str, target: str, *, skip_existing: bool = False) -> None:
    """As cp -al: directories are new, all else are hard links. With ``skip_existing`` it is laid over a tree.

    What goes meanwhile is left out. A file that has as many names as it can have is copied.
    """
    if not _make_directory(target, skip_existing=skip_existing):
        return
    waiting = [("", False)]
    while waiting:
        path, done = waiting.pop()
        with reach.directory(below(source, path)) as there, reach.directory(below(target, path)) as here:
            if done:
                # Last: what it holds would change its times, and it may be a directory that nobody may write to.
                copies.unless_gone(there, copies.take_metadata, there, here, times=True)
                continue
            waiting.append((path, True))
            for entry in entries(there):
                name = f"{here}/{entry.name}"
                if not entry.is_dir(follow_symlinks=False):
                    link_entry(entry.path, name, skip_existing=skip_existing)
                elif _make_directory(name, skip_existing=skip_existing):
                    waiting.append((f"{path}/{entry.name}" if path else entry.name, False))


def _make_directory(path: str, *, skip_existing: bool) -> bool:
    """Whether ``path`` is a directory now; an error, when it was there and is not to be skipped."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not skip_existing:
            raise
        found = lstat(path)
        return found is not None and stat.S_ISDIR(found.st_mode)
    return True


def link_entry(source: str, target: str, *, skip_existing: bool = False) -> None:
    """Another name for what is no directory."""
    try:
        _link(source, target)
    except FileExistsError:
        if not skip_existing:
            raise
    except OSError as error:
        # Overlays give all whiteouts of a file system one inode, up to its limit.
        if error.errno != errno.EMLINK:
            raise
        copies.unless_gone(source, copies.copy_entry, source, target)


def _link(source: str, target: str) -> None:
    """link(2), but for a source that goes. Between finding a file and linking it, another one may have taken its name:
    then the kernel says that there is none.
    """
    for left in range(_TRIES, -1, -1):
        try:
            os.link(source, target, follow_symlinks=False)
        except FileNotFoundError:
            if lstat(source) is None:
                return
            if not left:
                raise
        else:
            return


def remove_empty(path: str) -> bool:
    """Removes a directory that holds nothing; false when it holds something or is none."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        # Nor where it is immutable: it stays, as what it holds would.
        if error.errno not in (errno.ENOTEMPTY, errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.EBUSY):
            raise
        return False
    return True
