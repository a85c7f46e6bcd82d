"""Shows a log that grows to whoever called; the log keeps all of it, and what is shown does a terminal no harm."""

from __future__ import annotations

import os
import re
import select
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK = 65536
_LOOK = 25
"""Milliseconds. An inotify watch would tell when, and takes the kernel 15 ms to give up, which everybody would wait
for.
"""
_OWN = (b"==> ", b"system-migrate: ", b"  hint: ")
MOST = 1 << 20
_LAST, _WIDE = 20, 1000
_MORE = b"\n[more than 1 MB of output: what follows is shown in part, the log on the machine has more]\n"
_LONGEST = 65536
"""Bytes of a line that has no end yet, which is shown in pieces then."""


def readable(line: bytes) -> str:
    """A line as it can be shown: of one that was drawn over and over the last form; what is no text, as `?`."""
    drawn = line.rstrip(b"\r\n")
    text = (drawn[drawn.rfind(b"\r") + 1 :] + line[len(drawn) :]).decode("utf-8", "replace")
    return "".join(one if one.isprintable() or one in "\n\t\r" else "?" for one in text)


class Reader:
    """What is new in the file ``path``, line by line; its descriptor stays where the file is moved."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.rest = b""
        self.shown = Shown()

    def show(self, *, last: bool = False) -> bool:
        """Shows what is new, also of a line without an end where it is the ``last`` time; False: nobody reads any
        more.
        """
        while chunk := os.read(self.descriptor, _CHUNK):
            whole, end, self.rest = (self.rest + chunk).rpartition(b"\n")
            if len(self.rest) > _LONGEST:
                whole, end, self.rest = whole + end + self.rest, b"", b""
            if not self.shown.write(whole + end):
                return False
        if last:
            self.rest, rest = b"", self.rest
            return self.shown.write(rest) and self.shown.end()
        return True

    def wait(self, *others: int) -> list[int]:
        """Waits until one of ``others`` can be read, but no longer than until it is time for a look: those that can
        be.
        """
        poll = select.poll()
        for descriptor in others:
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll(_LOOK)]


class Shown:
    """What is sent of a log: all, up to a megabyte; then what the runner says itself, and the lines before that."""

    def __init__(self, most: int = MOST) -> None:
        self.left = most
        self._last: deque[bytes] = deque(maxlen=_LAST)
        self._dropped = False

    def write(self, data: bytes) -> bool:
        """False: nobody reads any more."""
        lines = _lines(data)
        if self.left >= len(data):
            self.left -= len(data)
            return _write(lines)
        told = [] if self.left < 0 else [_MORE]
        self.left = -1
        for line in lines:
            if line.startswith(_OWN):
                told += [*self._taken(), line]
            else:
                self._dropped = self._dropped or len(self._last) == _LAST
                self._last.append(line if len(line) < _WIDE else line[-_WIDE:])
        return _write(told)

    def end(self) -> bool:
        """Shows what came last; False as above."""
        return _write(self._taken())

    def _taken(self) -> list[bytes]:
        found = [b"[...]\n"] if self._dropped else []
        found += [line if line.endswith(b"\n") else line + b"\n" for line in self._last]
        self._last.clear()
        self._dropped = False
        return found


def show_forever(path: str) -> None:
    """Shows the file ``path`` and what comes to it, until this process is killed; nothing where there is no such
    file.
    """
    try:
        reader = Reader(path)
    except FileNotFoundError:
        return
    while reader.show():
        reader.wait()


def _write(lines: Iterable[bytes]) -> bool:
    text = "".join(map(readable, lines)).encode("utf-8")
    try:
        while text:
            text = text[os.write(1, text) :]
    except OSError:
        # A reader that has gone, a terminal that was hung up (EIO), a full disk: the worker goes on all the same.
        return False
    return True


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True) if b"\r" not in data else re.findall(rb"[^\n]*\n|[^\n]+", data)
