"""A disk that loses what its cache holds when the power goes: QEMU's over NBD, for tests of durability.

A real disk may keep writes in its memory until it is told to flush them, and may write them out in any order before.
So does this one: when the connection ends, which is how the power goes, some of the blocks that were written since the
last flush are on the disk and the others are not; `chance` says which. SIGUSR1 breaks it: from then on, until the power
has gone and come again, nothing can be written (EIO).

usage: python -m tests.disk SOCKET IMAGE SEED      (prints `ready`, and one line for each loss of power)
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import sys
from contextlib import closing
from pathlib import Path

BLOCK = 4096
_NEGOTIATE = struct.Struct(">QII")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_EIO = 5
_OPTION_MAGIC = 0x49484156454F5054
_ANSWER_MAGIC = 0x3E889045565A9
_GO = 7
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)


class Disk:
    """An image file, and the blocks that were written to it but not flushed."""

    def __init__(self, image: Path) -> None:
        self.file = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        self.cache: dict[int, bytes] = {}
        self.broken = False

    def read(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        blocks = bytearray(os.pread(self.file, (last - first) * BLOCK, first * BLOCK))
        for number in range(first, last):
            if number in self.cache:
                blocks[(number - first) * BLOCK : (number - first + 1) * BLOCK] = self.cache[number]
        return bytes(blocks[offset - first * BLOCK :][:length])

    def write(self, offset: int, data: bytes) -> None:
        first, last = offset // BLOCK, -(-(offset + len(data)) // BLOCK)
        blocks = bytearray(self.read(first * BLOCK, (last - first) * BLOCK))
        blocks[offset - first * BLOCK : offset - first * BLOCK + len(data)] = data
        for number in range(first, last):
            self.cache[number] = bytes(blocks[(number - first) * BLOCK : (number - first + 1) * BLOCK])

    def flush(self) -> None:
        for number, block in self.cache.items():
            os.pwrite(self.file, block, number * BLOCK)
        self.cache.clear()

    def lose_power(self, chance: random.Random) -> str:
        """Keep a part of the cache: none, all, or each block by the toss of a coin."""
        share = chance.choice((0.0, 0.5, 1.0))
        held = len(self.cache)
        self.cache = {number: block for number, block in self.cache.items() if chance.random() < share}
        kept = len(self.cache)
        self.flush()
        os.close(self.file)
        return f"{held - kept} of {held} unflushed blocks lost"


class Gone(Exception):
    """The other side is not there any more."""


def exactly(peer: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        try:
            part = peer.recv(min(length, 1 << 20))
        except ConnectionResetError:
            part = b""
        if not part:
            raise Gone
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def negotiate(peer: socket.socket, size: int) -> None:
    """NBD's fixed newstyle handshake: every option but GO is declined."""
    peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    exactly(peer, 4)
    while True:
        magic, option, length = _NEGOTIATE.unpack(exactly(peer, _NEGOTIATE.size))
        if magic != _OPTION_MAGIC:
            raise Gone
        exactly(peer, length)

        def answer(kind: int, data: bytes = b"", option: int = option) -> None:
            peer.sendall(struct.pack(">QIII", _ANSWER_MAGIC, option, kind, len(data)) + data)

        if option != _GO:
            answer(0x80000001)  # not supported
            continue
        # Flags: there are flags, and FLUSH works.
        answer(3, struct.pack(">HQH", 0, size, 0b101))
        answer(1)
        return


def serve(peer: socket.socket, disk: Disk) -> None:
    """Answer requests until the other side is gone."""
    negotiate(peer, disk.size)
    while True:
        _, _, kind, handle, offset, length = _REQUEST.unpack(exactly(peer, _REQUEST.size))
        data, error = b"", 0
        if kind == _READ:
            data = disk.read(offset, length)
        elif kind == _WRITE:
            content = exactly(peer, length)
            if disk.broken:
                error = _EIO
            else:
                disk.write(offset, content)
        elif kind == _FLUSH:
            if disk.broken:
                error = _EIO
            else:
                disk.flush()
        elif kind == _DISCONNECT:
            raise Gone
        peer.sendall(_REPLY.pack(0x67446698, error, handle) + data)


def main(path: str, image: str, seed: str) -> None:
    """One virtual machine after the other: a new one finds what the power left."""
    chance = random.Random(int(seed))  # noqa: S311 - to be repeated, not to be unguessable
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen()
        say("ready")
        while True:
            peer, _ = server.accept()
            with closing(peer):
                disk = Disk(Path(image))
                signal.signal(signal.SIGUSR1, lambda *_, disk=disk: setattr(disk, "broken", True))
                try:
                    serve(peer, disk)
                except (Gone, BrokenPipeError):
                    say(disk.lose_power(chance))


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(*sys.argv[1:])
