"""Reads the host's table of processes, and ends trees of them so that none escapes by forking meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

LIMIT = 30.0
"""Seconds within which what was killed is gone."""


def descendants(pid: int) -> list[int]:
    """The processes below ``pid``, whatever namespace they are in."""
    found, left = [], children(pid)
    while left:
        one = left.pop()
        left += children(one)
        found.append(one)
    return found


def children(pid: int) -> list[int]:
    """Those that any thread of a process has started and that are still its own."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - read thousands of times
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def parent(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(b")")[2].split()[1])


def ends(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but being asked for its status."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(b")")[2].split()[0] in {b"Z", b"X"}


def send(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_all(roots: Iterable[int], own: int = 0, reap: Callable[[], bool] = lambda: True) -> None:
    """SIGKILL to processes and all that they started. They are stopped first: none escapes by forking meanwhile.

    A process that waits in a system call for an answer does not stop, and need not: it does not go on either. All are
    gone in the end: one that nobody has asked for its status yet still counts as alive. ``own`` is the caller's to ask.
    ``reap`` asks for others, and says whether all can be asked for: process 1 of a machine may be waiting itself.
    """
    roots = list(roots)
    stopped: set[int] = set()
    while new := {one for root in roots for one in (root, *descendants(root))} - stopped:
        for one in new:
            send(one, signal.SIGSTOP)
        stopped |= new
    for one in stopped:
        send(one)
    stopped -= {own}
    until = time.monotonic() + LIMIT
    while left := [one for one in stopped if (Path(f"/proc/{one}").exists() if reap() else not ends(one))]:
        if time.monotonic() > until:
            raise TimeoutError(f"killed, and not gone: {left}")
        time.sleep(0.002)
