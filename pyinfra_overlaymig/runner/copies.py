"""Copies of single entries and of trees, with all that an entry is: owner, mode, attributes, times, holes, hard links.

As cp -a would; beside trees.py because only few verbs copy at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import ParamSpec

from pyinfra_overlaymig.format import octal

P = ParamSpec("P")
_FICLONE = 0x40049409
_PIECE = 1 << 20
OVERLAY = "trusted.overlay."


def unless_gone(source: str, step: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Runs ``step``; false when it failed because ``source`` went meanwhile."""
    try:
        step(*args, **kwargs)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.lexists(source):
            raise
        return False
    return True


def _itself(target: str | int) -> dict[str, bool]:
    """Arguments that make a call mean a link itself; of an open file nothing else is meant."""
    return {} if isinstance(target, int) else {"follow_symlinks": False}


def attributes(path: str | int, *, overlay: bool = True) -> dict[str, bytes]:
    """The extended attributes of an entry, ACLs among them; of a file system without any, none."""
    found: dict[str, bytes] = {}
    itself = _itself(path)
    try:
        names = os.listxattr(path, **itself)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return found
        raise
    for name in names:
        if not overlay and name.startswith(OVERLAY):
            continue
        try:
            found[name] = os.getxattr(path, name, **itself)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    return found


def attributes_text(found: dict[str, bytes]) -> str:
    """Extended attributes as a field of a journal."""
    pairs = ((octal.escape_path(name).replace(",", "\\054"), value.hex()) for name, value in sorted(found.items()))
    return ",".join(f"{name}={value}" for name, value in pairs) or "-"


def attributes_of(text: str) -> dict[str, bytes]:
    """The reverse of `attributes_text`."""
    pairs = (one.rsplit("=", 1) for one in text.split(",") if text != "-")
    return {octal.unescape_path(name): bytes.fromhex(value) for name, value in pairs}


def set_metadata(
    target: str | int, owner: tuple[int, int], mode: int, wanted: dict[str, bytes], *, keep: str = ""
) -> None:
    """Makes ``target`` so: only what differs is written, as some file systems refuse to.

    Owner first: it takes set-user-id bits and capabilities away. Attributes last: an ACL is the mode's own truth.
    ``keep``: attributes with this prefix are left alone.
    """
    itself = _itself(target)
    found = os.stat(target, **itself)
    chowned = (found.st_uid, found.st_gid) != owner
    if chowned:
        os.chown(target, *owner, **itself)
    if not stat.S_ISLNK(found.st_mode) and (chowned or stat.S_IMODE(found.st_mode) != mode):
        os.chmod(target, mode)
    is_now = attributes(target)
    for name in is_now.keys() - wanted.keys():
        if not (keep and name.startswith(keep)):
            os.removexattr(target, name, **itself)
    for name, value in wanted.items():
        if is_now.get(name) != value:
            os.setxattr(target, name, value, **itself)


def take_metadata(source: str, target: str | int, *, times: bool = False, overlay: bool = True) -> None:
    """Gives ``target`` the owner, mode and attributes of ``source``, and its times.

    Without ``overlay``, what an overlay notes in its upper is neither taken nor removed.
    """
    of = os.lstat(source)
    set_metadata(
        target, (of.st_uid, of.st_gid), stat.S_IMODE(of.st_mode), attributes(source, overlay=overlay),
        keep="" if overlay else OVERLAY,
    )  # fmt: skip
    if times:
        os.utime(target, ns=(of.st_atime_ns, of.st_mtime_ns), follow_symlinks=isinstance(target, int))


def set_time(target: int, time: int) -> None:
    """Gives an open directory this time, if it has another one: it may be on what is read-only."""
    if os.stat(target).st_mtime_ns != time:
        os.utime(target, ns=(time, time))


def copy_entry(source: str, target: str, *, reflink: bool = True, overlay: bool = True) -> None:
    """Copies one entry to a free name; of a directory, not what it holds."""
    found = os.lstat(source)
    if stat.S_ISREG(found.st_mode):
        _copy_file(source, target, reflink=reflink)
    elif stat.S_ISDIR(found.st_mode):
        os.mkdir(target, 0o700)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, 0o600 | stat.S_IFMT(found.st_mode), found.st_rdev)
    take_metadata(source, target, times=True, overlay=overlay)


def _copy_file(source: str, target: str, *, reflink: bool) -> None:
    # Not to wait for the other end of what may be a FIFO by now.
    there = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        here = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if not (reflink and clone(there, here)):
                copy_data(there, here)
        finally:
            os.close(here)
    finally:
        os.close(there)


def clone(there: int, here: int) -> bool:
    """Shares the blocks of an open file with another one; false where the file system does not."""
    try:
        fcntl.ioctl(here, _FICLONE, there)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def copy_data(there: int, here: int) -> None:
    """Copies the contents of an open file; its holes stay holes."""
    size = os.fstat(there).st_size
    for start, end in extents(there, size):
        os.lseek(there, start, os.SEEK_SET)
        os.lseek(here, start, os.SEEK_SET)
        _copy_piece(there, here, end - start)
    os.ftruncate(here, size)


def extents(file: int, size: int) -> list[tuple[int, int]]:
    """Where an open file has data, from and up to."""
    found = []
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            at = min(os.lseek(file, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno != errno.EINVAL:
                raise
            # A file system that knows no holes.
            start, at = at, size
        if start < at:
            found.append((start, at))
    return found


def _copy_piece(there: int, here: int, length: int) -> None:
    while length > 0:
        try:
            done = os.copy_file_range(there, here, min(length, _PIECE * 64))
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            done = 0
        if not done:
            # Some file systems answer with nothing where a plain read does not.
            done = _write_all(here, os.read(there, min(length, _PIECE)))
        if not done:
            return
        length -= done


def _write_all(here: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(here, view) :]
    return len(data)


def copy_tree(source: str, target: str, *, reflink: bool = True, overlay: bool = True) -> None:
    """As cp -aT to a free name: hard links within it stay links. What goes meanwhile is left out."""
    Copy(reflink=reflink, overlay=overlay).tree(source, target)


class Copy:
    """One cp -a. ``names``: where the first name of a file that has several was copied to."""

    def __init__(self, *, reflink: bool = True, overlay: bool = True) -> None:
        self.reflink = reflink
        self.overlay = overlay
        self.names: dict[tuple[int, int], str] = {}

    def tree(self, source: str, target: str) -> None:
        found = os.lstat(source)
        if not stat.S_ISDIR(found.st_mode):
            self._entry(source, target, found)
            return
        with os.scandir(source) as entries:
            held = [entry.name for entry in entries]
        os.mkdir(target, 0o700)
        for name in held:
            unless_gone(f"{source}/{name}", self.tree, f"{source}/{name}", f"{target}/{name}")
        unless_gone(source, take_metadata, source, target, times=True, overlay=self.overlay)

    def _entry(self, source: str, target: str, found: os.stat_result) -> None:
        inode = found.st_dev, found.st_ino
        if found.st_nlink > 1 and inode in self.names:
            os.link(self.names[inode], target, follow_symlinks=False)
            return
        copy_entry(source, target, reflink=self.reflink, overlay=self.overlay)
        if found.st_nlink > 1:
            self.names[inode] = target
