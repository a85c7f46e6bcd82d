"""What a command reads, on its way to a host: the same for all hosts, and telling how far it is where that takes long.

It is no part of `_command`, which is about what a machine answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Self

from pyinfra import logger
from pyinfra.api import Host

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.migration.packing import Packets

_EVERY: Final = 3.0
"""Seconds until the first word about it; what is sent in less says nothing."""
_AT_MOST: Final = 60.0
"""The same between two that come later."""


class Upload(list[str]):
    """``packets`` for the input of a command on ``host``; ``what`` they are is said with each word about them.

    It is a list of texts, as pyinfra wants one, and holds none: the packets are the same for all hosts.
    """

    def __init__(self, host: Host, what: str, packets: Packets) -> None:
        super().__init__()
        self._host, self._what, self._packets = host, what, packets

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._told()
        except InvalidMigration as error:
            # What was sent so far is no bundle to the machine: it refuses it, and no other host hears of this.
            self._host.log_styled(f"{error}\n    hint: {error.hint}", fg="red", log_func=logger.error)

    def _told(self) -> Iterator[str]:
        began = said = time.monotonic()
        every = _EVERY
        whole = in_megabytes(self._packets.total)
        for packet, until in self._packets.counted():
            yield _AsItIs(packet)
            if time.monotonic() - said >= every:
                # With fifty hosts on a slow line this would be all that is to be read.
                said, every = time.monotonic(), min(2 * every, _AT_MOST)
                self._host.log(f"{self._what}: {in_megabytes(until)} of {whole} sent")
        if said > began:
            self._host.log(f"{self._what}: all of {whole} sent in {time.monotonic() - began:.0f} s")


class _AsItIs(str):
    """Bytes for pyinfra, which sends what a text is encoded to, and ends each with a newline if it has none.

    Base64, which is text, takes a third more of the network and twice the time.
    """

    _data: bytes

    def __new__(cls, data: bytes) -> Self:
        made = super().__new__(cls)
        made._data = data
        return made

    def endswith(self, *_: object) -> bool:
        return True

    def encode(self, *_: object) -> bytes:
        return self._data


def in_megabytes(size: float) -> str:
    return f"{size / 1_000_000:.1f} MB"
