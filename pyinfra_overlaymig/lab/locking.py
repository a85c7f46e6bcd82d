"""One flock for the lab and one for what all labs of a host share; it must hold no other state."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Report = Callable[[str], None]


@contextmanager
def locked(directory: Path, *, report: Report, busy: str) -> Iterator[int]:
    """Hold the flock on ``directory`` (made if absent) and yield its descriptor.

    Says ``busy`` through ``report`` when another process holds it, and waits. The kernel frees
    the lock when its holder dies.
    """
    fd = _open(directory)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(busy)
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _still_there(fd, directory):
                break
            # `down` removed the directory while this process waited for it.
            os.close(fd)
            fd = _open(directory)
        yield fd
    finally:
        # Not left to close(): where gevent has patched it, that happens some time later.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _open(directory: Path) -> int:
    while True:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue


def _still_there(fd: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), directory.stat())
    except FileNotFoundError:
        return False


def write_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` by one rename: a kill leaves the old or the new file."""
    beside = path.with_name(f".{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    beside.chmod(mode)
    beside.replace(path)
