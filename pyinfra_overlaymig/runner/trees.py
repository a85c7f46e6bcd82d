"""Trees of files: walking, measuring, linking and removing them, as find, du, cp -al and rm -rf would.

One place, because what may be ignored is the same for all of them: what goes while it is looked at. Every other error
stops. How an entry is copied is in copies.py.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from pyinfra_overlaymig.runner import copies

OPAQUE = "trusted.overlay.opaque"
_DEEP = 100
"""Directories that are held open at a time while a tree is removed; what is deeper is moved up first."""


def is_whiteout(found: os.stat_result) -> bool:
    """What an overlay has in its upper for an entry that is deleted."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: str) -> bool:
    """A directory of an upper that hides all that the layers below have there."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.ENOENT):
            return False
        raise


def lstat(path: str) -> os.stat_result | None:
    """What is at ``path`` itself, None when nothing is."""
    try:
        return os.lstat(path)
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
        for entry in entries(below(top, here)):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = f"{here}/{entry.name}" if here else entry.name
            yield path, found
            if stat.S_ISDIR(found.st_mode) and (enter is None or enter(path)):
                waiting.append(path)


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
    try:
        os.mkdir(target, 0o700)
    except FileExistsError:
        found = lstat(target)
        if not skip_existing:
            raise
        if found is None or not stat.S_ISDIR(found.st_mode):
            return
    for entry in entries(source):
        if entry.is_dir(follow_symlinks=False):
            link_tree(entry.path, f"{target}/{entry.name}", skip_existing=skip_existing)
        else:
            link_entry(entry.path, f"{target}/{entry.name}", skip_existing=skip_existing)
    # Last: what it holds would change its times, and it may be a directory that nobody may write to.
    copies.unless_gone(source, copies.take_metadata, source, target, times=True)


def link_entry(source: str, target: str, *, skip_existing: bool = False) -> None:
    """Another name for what is no directory."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not skip_existing:
            raise
    except FileNotFoundError:
        if lstat(source) is not None:
            raise
    except OSError as error:
        # Overlays give all whiteouts of a file system one inode, up to its limit.
        if error.errno != errno.EMLINK:
            raise
        copies.unless_gone(source, copies.copy_entry, source, target)


def remove_tree(path: str, errors: list[OSError] | None = None) -> bool:
    """As rm -rf, by open directories: nobody who may write to the tree can lead it astray by a link.

    With ``errors``, what cannot be removed is told there, and the rest goes. True when all is gone.
    """
    known = 0 if errors is None else len(errors)
    parent, name = os.path.split(path.rstrip("/"))
    try:
        here = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        _Removal(errors).remove(here, name, path)
    finally:
        os.close(here)
    return errors is None or len(errors) == known


class _Removal:
    """One rm -rf. ``top``: the directory that very deep ones are moved to: neither names nor depth have a limit."""

    def __init__(self, errors: list[OSError] | None) -> None:
        self.errors = errors
        self.top = -1
        self.moved = 0

    def remove(self, parent: int, name: str, path: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._remove_directory(parent, name, path, 0)
        except OSError as error:
            self._failed(error, path)

    def _remove_directory(self, parent: int, name: str, path: str, depth: int) -> None:
        try:
            here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed(error, path)
            return
        try:
            if depth == 0:
                self.top = here
            moved = -1
            while moved != self.moved:
                moved = self.moved
                self._empty(here, path, depth)
                if depth:
                    break
        finally:
            os.close(here)
        self._try(os.rmdir, name, parent, path)

    def _empty(self, here: int, path: str, depth: int) -> None:
        with os.scandir(here) as found:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for name, is_directory in names:
            if not is_directory:
                self._try(os.unlink, name, here, f"{path}/{name}")
            elif depth < _DEEP:
                self._remove_directory(here, name, f"{path}/{name}", depth + 1)
            else:
                self.moved += 1
                os.rename(name, f".deep.{self.moved}", src_dir_fd=here, dst_dir_fd=self.top)

    def _try(self, remove: Callable[..., None], name: str, parent: int, path: str) -> None:
        try:
            remove(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed(error, path)

    def _failed(self, error: OSError, path: str) -> None:
        if self.errors is None:
            raise type(error)(error.errno, error.strerror, path) from None
        # A directory that is not empty says nothing that the entry that stayed has not said.
        if error.errno != errno.ENOTEMPTY or not self.errors:
            self.errors.append(type(error)(error.errno, error.strerror, path))
