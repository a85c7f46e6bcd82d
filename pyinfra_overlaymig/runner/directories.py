"""Directories below a top that others may write to, held open: no link that is put into the way leads out of it."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directories:
    """Opens directories by their paths relative to ``top``; one stays open until the next one is asked for."""

    def __init__(self, top: str) -> None:
        self.top = top
        self._top = os.open(top, _FLAGS)
        self._last: tuple[str, int] = ("", -1)

    def close(self) -> None:
        self._forget()
        os.close(self._top)

    def _forget(self) -> None:
        if self._last[1] >= 0:
            os.close(self._last[1])
        self._last = ("", -1)

    def open(self, path: str, *, make: bool = False) -> int:
        """The directory ``path``, which belongs to this object. With ``make`` it is one, in place of what is there."""
        if path in ("", "."):
            return self._top
        if self._last[0] != path:
            self._forget()
            self._last = (path, self._walk(path, make=make))
        return self._last[1]

    def of(self, path: str, *, make: bool = False) -> tuple[int, str]:
        """The directory that ``path`` lies in, and its name there."""
        above, _, name = path.rpartition("/")
        return self.open(above, make=make), name

    def _walk(self, path: str, *, make: bool) -> int:
        here = os.dup(self._top)
        for name in path.split("/"):
            try:
                below = _enter(here, name, make=make)
            except OSError as error:
                raise type(error)(error.errno, error.strerror, f"{self.top}/{path}") from None
            finally:
                os.close(here)
            here = below
        return here


def _enter(here: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=here)
    except OSError as error:
        if not make or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if error.errno != errno.ENOENT:
            os.unlink(name, dir_fd=here)
        os.mkdir(name, 0o755, dir_fd=here)
        return os.open(name, _FLAGS, dir_fd=here)


@contextmanager
def below(top: str) -> Iterator[Directories]:
    """Directories below ``top``, closed at the end."""
    held = Directories(top)
    try:
        yield held
    finally:
        held.close()


def stat_at(directory: int, name: str) -> os.stat_result | None:
    """What is at ``name`` in an open directory, None when nothing is."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
