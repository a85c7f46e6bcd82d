"""The kernel's grace periods, shortened for a moment: it waits for one, of 12 ms, whenever an audit rule is deleted.

A session has some twenty rules, and each system call of the host is held against all there are: where fifty machines$
are changed at once, most of the host's time would go into rules that wait to be deleted.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXPEDITED = Path("/sys/kernel/rcu_expedited")


@contextmanager
def short(lock: Path) -> Iterator[bool]:
    """Have them short, and as they were afterwards; False where this host does not let us.

    ``lock`` is held meanwhile: another keeper would find what this one set, and leave it so.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            before = _EXPEDITED.read_text()
            _EXPEDITED.write_text("1")
        except OSError:
            # /sys cannot be written in a container; there the kernel takes its time.
            yield False
            return
        try:
            yield True
        finally:
            _EXPEDITED.write_text(before)
