"""What a program of the operator's says, on its way into the log: all of it, or its beginning and its end.

A program that never stops talking must fill neither the disk, with a log that is kept, nor the operator's connection.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
from collections import deque
from contextlib import suppress

from pyinfra_overlaymig.runner.say import write_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.clock import Deadline

HEAD = 4 << 20
TAIL = 256 << 10
_F_SETPIPE_SZ = 1031
_PIECE = 1 << 20


class Output:
    """A pipe; ``tells`` is what the program writes to, ``told`` becomes readable. To be made before it is started."""

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self.told, self.tells = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.told, False)
        with suppress(OSError):
            # A large one is read in large pieces.
            fcntl.fcntl(self.tells, _F_SETPIPE_SZ, _PIECE)
        self.left = self.head = head
        self.most = tail
        self._end: deque[bytes] = deque()
        self._held = 0
        self._gone = 0
        self._cut = False
        self._whole = True

    def connect(self) -> None:
        """In the program's process: standard output and error go there."""
        os.dup2(self.tells, 1)
        os.dup2(self.tells, 2)

    def begun(self) -> None:
        """Only the program can write there from now on."""
        os.close(self.tells)

    def take(self) -> bool:
        """Passes on what has come; False when no more will."""
        try:
            data = os.read(self.told, _PIECE)
        except BlockingIOError:
            return True
        head, rest = data[: self.left], data[self.left :]
        self.left -= len(head)
        self._write(head)
        if rest and not self._cut:
            self._cut = True
            self._write(f"\n[more than {_size(self.head)} of output: from here on its end alone is kept]\n".encode())
        self._keep(rest)
        return bool(data)

    def _write(self, data: bytes) -> None:
        if data:
            write_bytes(1, data)
            self._whole = data.endswith(b"\n")

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._end.append(data[-self.most :])
        self._held += len(self._end[-1])
        self._gone += len(data) - len(self._end[-1])
        while self._held - len(self._end[0]) >= self.most:
            first = self._end.popleft()
            self._held -= len(first)
            self._gone += len(first)

    def take_until(self, descriptor: int, deadline: Deadline) -> None:
        """Passes on what comes until ``descriptor`` can be read, but no longer than the deadline."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self.told, select.POLLIN)
        while not deadline.over():
            ready = [one for one, _ in poll.poll(deadline.milliseconds())]
            if self.told in ready and not self.take():
                poll.unregister(self.told)
            if descriptor in ready:
                return

    def end(self) -> None:
        """Passes on what is there yet. Who has the pipe all the same is not listened to any more."""
        left = HEAD
        while left > 0 and (count := _waiting(self.told)):
            self.take()
            left -= count
        os.close(self.told)
        if self._gone:
            self._write(f"[{self._gone} bytes are left out here]\n".encode())
        self._write(b"".join(self._end))
        if not self._whole:
            self._write(b"\n")


def _waiting(descriptor: int) -> int:
    """How many bytes can be read."""
    found = bytearray(4)
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return int.from_bytes(found, sys.byteorder)


def _size(count: int) -> str:
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"
