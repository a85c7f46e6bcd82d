"""What refuses changes by root too: entries that somebody made immutable or append-only (chattr), file systems that are
read-only.

It is somebody's will, so that a migration which needs such a change is refused before its commit. What is taken back,
or given up, was this runner's to change in the first place: there it is lifted for the moment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import ExitStack, contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_IMMUTABLE, _APPEND = 0x10, 0x20
_HARMLESS = 0x4 | 0x8 | 0x40 | 0x80 | 0x10000
"""c, S, d, A and D, as chattr calls them: compressed, synchronous, no dump, no times of access, of directories."""
# The size that the kernel wrote into these numbers is that of a long; what it reads and writes are 32 bits.
_SIZE = struct.calcsize("l") << 16
_GET, _SET = 0x80006601 | _SIZE, 0x40006602 | _SIZE
_UNKNOWN = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF)
_ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _flags(file: int) -> int:
    """Those of an open file; of a file system without any, none."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(file, _GET, bytes(4)))[0])
    except OSError as error:
        if error.errno in _UNKNOWN:
            return 0
        raise


def set_by_hand(path: str) -> int:
    """The flags of a file or directory that a program of chattr's kind sets, and that hinder no change."""
    file = os.open(path, _ENTRY)
    try:
        return _flags(file) & _HARMLESS
    finally:
        os.close(file)


def why(file: int) -> str:
    """What an open file or directory is that keeps it from being changed, empty where nothing does."""
    flags = _flags(file)
    if flags & _IMMUTABLE:
        return "immutable (chattr +i)"
    if flags & _APPEND:
        return "append-only (chattr +a)"
    return "on a read-only file system" if os.fstatvfs(file).f_flag & os.ST_RDONLY else ""


def why_at(path: str) -> str:
    """The same of an entry; what is neither file nor directory is nothing of it."""
    found = os.lstat(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return ""
    file = os.open(path, _ENTRY)
    try:
        return why(file)
    finally:
        os.close(file)


def anyway(step: Callable[[], T], directory: int, name: str = "") -> T:
    """Does ``step``, which changes an open directory or its entry ``name``, also where these are immovable."""
    try:
        return step()
    except PermissionError:
        with ExitStack() as lifted:
            lifted.enter_context(_lifted(directory, "."))
            if name:
                lifted.enter_context(_lifted(directory, name))
            return step()


def rename(source: str, target: str) -> None:
    """rename(2), also of what is immovable, or lies in what is; ``target`` is free, or is replaced."""
    try:
        os.rename(source, target)
    except PermissionError:
        with ExitStack() as lifted:
            for path in (os.path.dirname(source), source, os.path.dirname(target), target):
                lifted.enter_context(_lifted(None, path))
            os.rename(source, target)


@contextmanager
def _lifted(directory: int | None, name: str) -> Iterator[None]:
    """Meanwhile it can be changed. What has no name any more at the end is let go."""
    file = -1
    with suppress(OSError):
        # What cannot be opened (a link, what is gone) has no flags.
        file = os.open(name, _ENTRY, dir_fd=directory)
    if file < 0:
        yield
        return
    try:
        flags = _flags(file)
        held = flags & (_IMMUTABLE | _APPEND)
        if held:
            fcntl.ioctl(file, _SET, struct.pack("i", flags & ~held))
        try:
            yield
        finally:
            if held and os.fstat(file).st_nlink:
                fcntl.ioctl(file, _SET, struct.pack("i", flags))
    finally:
        os.close(file)
