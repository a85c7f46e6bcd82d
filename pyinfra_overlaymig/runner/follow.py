"""Shows a log that grows to whoever called; the log keeps all of it, and what is shown does a terminal no harm."""

from __future__ import annotations

import os
import re
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK = 65536
_DRAWN_OVER = re.compile(rb"[^\n]*\r(?=[^\n\r])")
_LOOK = 25
"""Milliseconds. An inotify watch would tell when, and takes the kernel 15 ms to give up, which everybody would wait
for.
"""
_LONGEST = 65536
"""Bytes of a line that has no end yet, which is shown in pieces then."""


def readable(line: bytes) -> str:
    """A line as it can be shown: of one that was drawn over and over the last form; what is no text, as `?`."""
    text = _DRAWN_OVER.sub(b"", line).decode("utf-8", "replace")
    return "".join(one if one.isprintable() or one in "\n\t\r" else "?" for one in text)


class Reader:
    """What is new in the file ``path``, line by line; its descriptor stays where the file is moved."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.rest = b""

    def show(self, *, last: bool = False) -> bool:
        """Shows what is new, also of a line without an end where it is the ``last`` time; False: nobody reads any
        more.
        """
        while chunk := os.read(self.descriptor, _CHUNK):
            whole, end, self.rest = (self.rest + chunk).rpartition(b"\n")
            if len(self.rest) > _LONGEST:
                whole, end, self.rest = whole + end + self.rest, b"", b""
            if not _write(whole + end):
                return False
        if last and self.rest:
            self.rest, rest = b"", self.rest
            return _write(rest)
        return True

    def wait(self, *others: int) -> list[int]:
        """Waits until one of ``others`` can be read, but no longer than until it is time for a look: those that can
        be.
        """
        poll = select.poll()
        for descriptor in others:
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll(_LOOK)]


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


def _write(data: bytes) -> bool:
    text = "".join(map(readable, _lines(data))).encode("utf-8")
    try:
        while text:
            text = text[os.write(1, text) :]
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _lines(data: bytes) -> Iterable[bytes]:
    return data.splitlines(keepends=True) if b"\r" not in data else re.findall(rb"[^\n]*\n|[^\n]+", data)
