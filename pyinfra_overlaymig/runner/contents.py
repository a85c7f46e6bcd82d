"""Reads what is in files: whether two are the same, and the SHA-256 of one."""

from __future__ import annotations

import hashlib
import os
from typing import Any, NamedTuple

from pyinfra_overlaymig.runner import copies, halves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = 1 << 20
_ZEROS = bytes(SMALL)


class Wanted(NamedTuple):
    """A file to read. ``both``: the stack's is as large, is it the same? ``enough``: if it is, no digest is wanted."""

    path: str
    size: int
    both: bool
    enough: bool


class Content(NamedTuple):
    """``digest`` in hex, empty where none was wanted; whether the stack's file is the ``same``."""

    digest: str
    same: bool


def large(upper: str, lower: str, wanted: list[Wanted], check: Callable[[int, int], None]) -> dict[str, Content]:
    """What is in files of ``upper``, by two processes, which ``check`` interrupts. One that is gone has no answer.

    The largest is read here: ``check`` is told of it.
    """
    shares: tuple[list[Wanted], list[Wanted]] = ([], [])
    loads = [0, 0]
    for one in sorted(wanted, key=lambda one: -one.size):
        least = 0 if loads[0] <= loads[1] else 1
        shares[least].append(one)
        loads[least] += one.size
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        check(done, loads[0])

    def mine() -> dict[str, Content]:
        return {one.path: found for one in shares[0] if (found := content(upper, lower, one, progress)) is not None}

    def other() -> list[tuple[str, Any]]:
        found = ((one.path, content(upper, lower, one)) for one in shares[1])
        return [(path, tuple(what)) for path, what in found if what is not None]

    if not shares[1]:
        return mine()
    here, there = halves.both(mine, other, lambda: check(done, loads[0]))
    return {**here, **{path: Content(*what) for path, what in there}}


def content(upper: str, lower: str, one: Wanted, progress: Callable[[int], None] = lambda _: None) -> Content | None:
    """What is in one file of ``upper``; None when it is gone. What cannot be read is an error."""
    try:
        here = _open(f"{upper}/{one.path}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if one.size <= SMALL:
            return _small(here, f"{lower}/{one.path}", one)
        return _large(here, f"{lower}/{one.path}", one, progress)
    finally:
        os.close(here)


def alike(one: str, other: str) -> bool:
    """Whether two files hold the same."""
    here = _open(one)
    try:
        there = _open(other)
        try:
            return _same(here, there, lambda _: None)
        finally:
            os.close(there)
    finally:
        os.close(here)


def _open(path: str) -> int:
    # Not to wait for the other end of what may be a FIFO by now, and not to note that it was read.
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)


def _small(here: int, other: str, one: Wanted) -> Content:
    data = _whole(here, one.size)
    same = False
    if one.both:
        there = _open(other)
        try:
            same = _whole(there, one.size) == data
        finally:
            os.close(there)
    return Content("" if same and one.enough else hashlib.sha256(data).hexdigest(), same)


def _whole(file: int, size: int) -> bytes:
    data = os.read(file, size + 1)
    while len(data) < size and (more := os.read(file, size - len(data))):
        data += more
    return data


def _large(here: int, other: str, one: Wanted, progress: Callable[[int], None]) -> Content:
    same = False
    if one.both:
        there = _open(other)
        try:
            same = _same(here, there, progress)
        finally:
            os.close(there)
    if same and one.enough:
        return Content("", same)
    digest = hashlib.sha256()
    for piece in _pieces(here, os.fstat(here).st_size):
        digest.update(piece)
        progress(len(piece))
    return Content(digest.hexdigest(), same)


def _pieces(file: int, size: int) -> Iterator[bytes | memoryview]:
    """All of a file. Its holes are not read: zeros are known."""
    at = 0
    zeros = memoryview(_ZEROS)
    for start, end in [*copies.extents(file, size), (size, size)]:
        while at < start:
            length = min(start - at, SMALL)
            at += length
            yield zeros[:length]
        while at < end:
            data = os.pread(file, min(end - at, SMALL), at)
            if not data:
                return
            at += len(data)
            yield data


def _same(one: int, other: int, progress: Callable[[int], None]) -> bool:
    """Whether two files of one size hold the same; where both have a hole, nothing is read."""
    size = os.fstat(one).st_size
    if os.fstat(other).st_size != size:
        return False
    for start, end in sorted(copies.extents(one, size) + copies.extents(other, size)):
        for at in range(start, end, SMALL):
            length = min(SMALL, end - at)
            if os.pread(one, length, at) != os.pread(other, length, at):
                return False
            progress(0)
    return True
