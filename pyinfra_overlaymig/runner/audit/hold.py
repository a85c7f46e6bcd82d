"""The audit log's files, held open so that one which is rotated away can still be read: a busy session writes more than
auditd keeps. Nothing here polls: the log's directory tells when it changes.
"""

from __future__ import annotations

import os
import select
import time

from pyinfra_overlaymig.runner import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_IN_MOVED_FROM, _IN_MODIFY = 0x40, linux.IN_MODIFY
_ROTATED = linux.IN_CREATE | linux.IN_MOVED_TO | _IN_MOVED_FROM
_OLDER = tuple(f".{number}" for number in range(9, 0, -1))
_LOOKS = 3
"""So often a rotation may be in the way of seeing the file that was held last."""
_BLOCK = 1 << 20
_LATE = 30.0
_MARK_AGAIN = 1.0
_PATIENCE = 0.05
"""Seconds: a log that is written by way of another mount, as before a switch, tells no one here that it changed."""


class Log:
    """The files that the log has been since this was made, the oldest first, by descriptors."""

    def __init__(self, path: str) -> None:
        directory, self._name = os.path.split(path)
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        first = self._open(self._name)
        self.size = os.fstat(first).st_size
        """Where the log ended when this was made."""
        self._held = [first]
        self._last = os.fstat(first).st_ino
        self.gap = False
        self.rotated = linux.inotify(directory, _ROTATED)
        self._at = self.size
        self._place = 0

    def _open(self, name: str) -> int:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)

    def look(self) -> None:
        """Holds what the log has become since; ``gap`` if a file may have come and gone in between."""
        for _ in range(_LOOKS):
            found = self._newer()
            if found is not None:
                break
            # Its names change one after the other: the next look sees it.
            select.select([self.rotated], [], [], _PATIENCE)
            linux.drain(self.rotated)
        else:
            self.gap = True
            found = self._files()
        for descriptor in found:
            self._held.append(descriptor)
            self._last = os.fstat(descriptor).st_ino

    def _newer(self) -> list[int] | None:
        """The files after the one that was held last, None where that one is not to be seen."""
        found = self._files()
        for place, descriptor in enumerate(found):
            if os.fstat(descriptor).st_ino == self._last:
                for known in found[: place + 1]:
                    os.close(known)
                return found[place + 1 :]
        for descriptor in found:
            os.close(descriptor)
        return None

    def _files(self) -> list[int]:
        found = []
        for end in (*_OLDER, ""):
            try:
                found.append(self._open(self._name + end))
            except FileNotFoundError:
                continue
        return found

    def read(self) -> bytes:
        """What was written since the last call, some of it; nothing once there is no more yet."""
        while True:
            data = os.pread(self._held[self._place], _BLOCK, self._at)
            if data:
                self._at += len(data)
                return data
            if self._place + 1 == len(self._held):
                return b""
            self._place, self._at = self._place + 1, 0

    def close(self) -> None:
        """In a process that is not the holder."""
        for descriptor in (*self._held, self._directory, self.rotated):
            os.close(descriptor)

    def watch_writes(self) -> int:
        """A descriptor that tells when the log was written or rotated."""
        return linux.inotify(f"/proc/self/fd/{self._directory}", _ROTATED | _IN_MODIFY)


def until_told(log: Log, orders: int) -> bytes:
    """Holds the log until there is an order, and returns it; empty where who gives orders is gone."""
    while True:
        ready = select.select([log.rotated, orders], [], [])[0]
        if log.rotated in ready:
            linux.drain(log.rotated)
            log.look()
        if orders in ready:
            return os.read(orders, 1)


def take(log: Log, records: str) -> str:
    """Writes all records until now to the file ``records``: empty, or the state of a session that they are not all of.

    Raises OSError where they cannot be written, and leaves nothing: a part of them would pass for all.
    """
    try:
        with open(records, "wb") as file:
            complete = _copy(log, file.write)
    except OSError:
        files.drop(records)
        raise
    return "" if complete and not log.gap else "incomplete"


def _copy(log: Log, write: Callable[[bytes], object]) -> bool:
    """Until the record of one more session, of a process that does nothing: it comes after all others."""
    changed = log.watch_writes()
    begun = time.monotonic()
    marks: list[bytes] = []
    tail = b""
    while (waited := time.monotonic() - begun) < _LATE:
        # It may be dropped as others are where there is no room, so another follows each second.
        if waited >= len(marks) * _MARK_AGAIN:
            marks.append(_mark())
        linux.drain(changed)
        log.look()
        while data := log.read():
            write(data)
            tail += data
            if _marked(tail, marks):
                return True
            tail = tail[tail.rfind(b"\n") + 1 :]
        select.select([changed], [], [], _PATIENCE)
    return False


def _marked(data: bytes, marks: list[bytes]) -> bool:
    return any(
        (at := data.find(mark)) >= 0 and b"type=LOGIN " in data[data.rfind(b"\n", 0, at) + 1 : at] for mark in marks
    )


def _mark() -> bytes:
    """A fresh session for this process; how the record of its begin names it."""
    with open("/proc/self/loginuid", "w", encoding="ascii") as file:
        file.write("0")
    return f" ses={files.read('/proc/self/sessionid')} ".encode()
