"""Work that two processes share: this one does a half of it, a child the other, which it tells in one piece.

Processes and not threads: of many small files most is the interpreter's work.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
from typing import Any

from pyinfra_overlaymig.runner import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVAL = 200
"""Milliseconds between two looks at whether it is to go on."""
_PIECE = 1 << 20


def both(mine: Callable[[], Any], other: Callable[[], Any], check: Callable[[], None]) -> tuple[Any, Any]:
    """What ``mine`` and, in a child, ``other`` answer: tuples, lists, strings, bytes, numbers. ``check`` may raise."""
    told, tells = os.pipe()

    def child() -> None:
        os.close(told)
        # What a TERM does to the runner is not for half of it to do.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with os.fdopen(tells, "wb") as file:
            file.write(marshal.dumps(other()))

    worker = spawn.fork(child)
    os.close(tells)
    try:
        answer = mine()
        data = _listen(told, check)
    except BaseException:
        os.kill(worker.pid, signal.SIGKILL)
        spawn.wait(worker)
        raise
    finally:
        os.close(told)
    if spawn.wait(worker):
        raise OSError(5, "a half of the work failed, see above")
    return answer, marshal.loads(data)  # noqa: S302 - a child of this very process wrote it


def _listen(told: int, check: Callable[[], None]) -> bytes:
    poll = select.poll()
    poll.register(told, select.POLLIN)
    found: list[bytes] = []
    while True:
        if poll.poll(_INTERVAL):
            data = os.read(told, _PIECE)
            if not data:
                return b"".join(found)
            found.append(data)
        check()
