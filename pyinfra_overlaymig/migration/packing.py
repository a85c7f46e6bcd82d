"""What a bundle goes through on its way: a tar, compressed where that pays, in packets for a command's input.

It is a file of its own as it knows nothing of migrations. All of it is pulled piece by piece: a machine unpacks the
beginning while the end is not packed yet, and nothing is in memory twice.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator

_PACKET = 32_704
"""Bytes that are sent at once: a packet of ssh that is just not cut in two."""
_PIECE = 1 << 20
_SAMPLE = 1 << 13
_PAYS = 0.95
"""What random bytes, pictures and packages are compressed to is more than this: they go as they are."""
_GZIP = 31
"""zlib's number for the form that gzip has."""
_THOROUGH = 8
"""Pieces that are compressed well. Who sends more than these would wait for zlib longer than for the network."""


class Packets:
    """The packets of ``source``, which are made when the first one asks for them, and kept for all others.

    ``count``: of the bytes that are packed, where somebody wants to know how far it is.
    """

    def __init__(self, source: Iterable[bytes], count: Count | None = None) -> None:
        self._source = pieces_of(_PACKET, source)
        self._made: list[bytes] = []
        self._until: list[int] = []
        self._count = count or Count(0)
        self._broken: Exception | None = None

    @property
    def total(self) -> int:
        return self._count.total

    def __iter__(self) -> Iterator[bytes]:
        return (packet for packet, _ in self.counted())

    def counted(self) -> Iterator[tuple[bytes, int]]:
        """Each with the bytes of what is packed that it and those before it hold."""
        number = 0
        while number < len(self._made) or self._makes_one():
            yield self._made[number], self._until[number]
            number += 1

    def _makes_one(self) -> bool:
        if self._broken:
            raise self._broken
        try:
            packet = next(self._source, None)
        except Exception as error:
            # A source that broke looks like one that has ended to whoever asks next.
            self._broken = error
            raise
        if packet is not None:
            self._made.append(packet)
            self._until.append(self._count.passed)
        return packet is not None


class Count:
    """How many bytes of ``total`` have passed."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.passed = 0

    def of(self, source: Iterable[bytes]) -> Iterator[bytes]:
        """``source``, counted."""
        for piece in source:
            self.passed += len(piece)
            yield piece


def tar_member(header: tarfile.TarInfo, content: Iterable[bytes] = ()) -> Iterator[bytes]:
    """A file, directory or link as a tar has it; ``content`` has to be as long as the header says."""
    yield header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    if header.size:
        yield from content
        yield bytes(-header.size % tarfile.BLOCKSIZE)


TAR_END = bytes(2 * tarfile.BLOCKSIZE)


def compressed(source: Iterable[bytes]) -> Iterator[bytes]:
    """``source`` as gzip has it, in members of a piece each."""
    for number, piece in enumerate(pieces_of(_PIECE, source)):
        level = (9 if number < _THOROUGH else 1) if _pays(piece) else 0
        member = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
        yield member.compress(piece)
        yield member.flush()


def pieces_of(size: int, source: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of this size; the last one may be smaller."""
    rest = bytearray()
    for piece in source:
        rest += piece
        whole = len(rest) - len(rest) % size
        with memoryview(rest) as view:
            for at in range(0, whole, size):
                yield bytes(view[at : at + size])
        del rest[:whole]
    if rest:
        yield bytes(rest)


def _pays(piece: bytes) -> bool:
    """By a sample from its middle: files begin with headers, which say little of what follows."""
    middle = len(piece) // 2
    sample = piece[max(0, middle - _SAMPLE // 2) : middle + _SAMPLE // 2]
    return len(zlib.compress(sample, 1)) < _PAYS * len(sample)
