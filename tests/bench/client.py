"""A client that asks a service every 5 ms, in a process of its own, so that the bench's own work delays no question."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_EVERY = 0.005
_LATE = 1.0
"""Seconds after which an answer counts as lost."""


@dataclass(frozen=True)
class Heard:
    """How often it asked, how often no answer came, and how many seconds the slowest took."""

    asked: int
    lost: int
    longest: float


class Client:
    """Asks from the beginning of the context until `end`."""

    def __init__(self, address: str, port: int) -> None:
        argv = [sys.executable, "-m", "tests.bench.client", address, str(port)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        # It is asking when it says so.
        if self._process.stdout is not None:
            self._process.stdout.readline()
        return self

    def end(self) -> Heard:
        """It asks no more: what it heard."""
        out, _ = self._process.communicate(timeout=30)
        return Heard(**json.loads(out))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def ask(address: str, port: int) -> float | None:
    """Seconds until the answer; None where there was none."""
    begun = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=_LATE) as peer:
            if peer.recv(2) != b"ok":
                return None
    except OSError:
        return None
    return time.monotonic() - begun


def main(address: str, port: int) -> None:
    """Asks until standard input ends. A question that waits does not delay the ones after it: there is one thread for
    each, as for each user of a service.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - of the process that asks alone

    with ThreadPoolExecutor(256) as pool:
        asked = [pool.submit(ask, address, port)]
        asked[0].result()
        sys.stdout.write("asking\n")
        sys.stdout.flush()
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            asked.append(pool.submit(ask, address, port))
            due += _EVERY
        answers = [one.result() for one in asked]
    heard = [one for one in answers if one is not None]
    found = Heard(len(answers), len(answers) - len(heard), max(heard, default=0.0))
    sys.stdout.write(json.dumps(vars(found)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
