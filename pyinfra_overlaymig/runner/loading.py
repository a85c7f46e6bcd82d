"""Whether a program can be loaded. exec(2) tells that it is missing; that its libraries are, its loader says when there
is no way back: process 1 that ends so takes the machine with it.
"""

from __future__ import annotations

import errno
import os
import struct

from pyinfra_overlaymig.runner import spawn

_INTERPRETERS = 4
"""As many as the kernel follows."""
_MOST = 1 << 16
_PT_INTERP = 3


def trouble(command: str) -> OSError | None:
    """That what ``command`` is loaded with lacks something. None where nothing does, or that cannot be told."""
    path: str | None = _found(command)
    for _ in range(_INTERPRETERS):
        start = _start(path) if path else b""
        if not start.startswith(b"#!"):
            break
        words = start[2:].partition(b"\n")[0].split()
        path = os.fsdecode(words[0]) if words else None
    loader = _loader(start)
    # glibc's and musl's list what they would load; they say 127, and nothing else does, where that is not there.
    if loader and path and spawn.run([loader, "--list", path], quiet=True) == spawn.NOT_FOUND:
        return OSError(errno.ELIBACC, os.strerror(errno.ELIBACC), path)
    return None


def _found(command: str) -> str | None:
    if "/" in command:
        return command
    places = (f"{place}/{command}" for place in os.environ["PATH"].split(":"))
    return next((one for one in places if os.access(one, os.X_OK)), None)


def _start(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except OSError:
        # exec(2) says it.
        return b""


def _loader(start: bytes) -> str:
    """The program that an ELF file names to load it; empty for one that is none, or needs none."""
    if not start.startswith(b"\x7fELF"):
        return ""
    order = "<" if start[5] == 1 else ">"
    # Of the two classes: where the table of segments is, how it is laid out, and where a segment says where it lies.
    at, table, segment = (32, "Q12xHHH", "I4xQ16xQ") if start[4] == 2 else (28, "I8xHHH", "II8xI")  # noqa: PLR2004
    try:
        fields = struct.unpack_from(order + table, start, at)
        first, size, count = fields[0], fields[-2], fields[-1]
        for number in range(count):
            kind, where, length = struct.unpack_from(order + segment, start, first + number * size)
            if kind == _PT_INTERP:
                return os.fsdecode(start[where : where + length].rstrip(b"\0"))
    except struct.error:
        return ""
    return ""
