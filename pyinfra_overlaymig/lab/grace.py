"""The kernel's grace periods, shortened for a moment: it waits for one, of 12 ms, whenever an audit rule is deleted.

A session has some twenty rules, and each system call of the host is held against all there are: where fifty machines
are changed at once, most of the host's time would go into rules that wait to be deleted.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_EXPEDITED = Path("/sys/kernel/rcu_expedited")


@contextmanager
def short(lock: Path) -> Iterator[bool]:
    """Have them short, and as they were afterwards; False where this host does not let us.

    ``lock`` is held meanwhile, and notes how they were: another keeper would find what this one set, and leave it so.
    """
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        quick = _shorten(file)
        try:
            yield quick
        finally:
            _restore(file)


def restore(lock: Path) -> None:
    """As they were, where a keeper was killed while they were short."""
    if lock.exists():
        with lock.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _restore(file)


def _shorten(file: IO[str]) -> bool:
    try:
        before = _EXPEDITED.read_text()
        # What whoever was killed has noted is how they were, not what they are.
        if not _noted(file):
            file.write(before)
            file.flush()
        _EXPEDITED.write_text("1")
    except OSError:
        # /sys cannot be written in a container; there the kernel takes its time.
        return False
    return True


def _restore(file: IO[str]) -> None:
    if before := _noted(file):
        with suppress(OSError):
            _EXPEDITED.write_text(before)
        file.truncate(0)


def _noted(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
