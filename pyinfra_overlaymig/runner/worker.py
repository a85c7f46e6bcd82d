"""Work that outlives the operator's connection: a process of its own, whose output goes to a log, which is shown as
it grows.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.runner import files, lock, spawn
from pyinfra_overlaymig.runner.follow import Reader
from pyinfra_overlaymig.runner.say import Leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_KILLED = 128


class Awaiting:
    """Tells whoever shows the log that from here on only a new connection counts: a pipe from the worker to it."""

    def __init__(self) -> None:
        self.told, self.tells = os.pipe()

    def tell(self) -> None:
        """In the worker: a confirmation is awaited."""
        os.write(self.tells, b".")


awaiting: Awaiting | None = None
"""Of this process, where it is a worker or shows one."""


def run(log: str, work: Callable[[], int]) -> int:
    """Does ``work`` that way; its exit code, or 0 as soon as it awaits a confirmation: `confirm` then has its code."""
    global awaiting  # noqa: PLW0603 - a process is one worker, or shows one
    files.write_plain(log, "")
    awaiting = Awaiting()
    reader = Reader(log)
    child = spawn.fork(lambda: _work(log, work), orphan=True)
    # From here on the lock is the worker's alone: who shows its log to a dead connection must not keep it.
    lock.release()
    os.close(awaiting.tells)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _interrupt(child))
    if _show(reader, child, awaiting.told):
        return 0
    # Nobody reads any more, and that before the switch: no confirmation will come, and none that does not come says
    # that the machine is out of reach.
    code = spawn.wait(child, None)
    if code is None or code > _KILLED:
        raise Leave(20, "the transaction was killed", "run: system-migrate recover")
    return code


def _work(log: str, work: Callable[[], int]) -> int:
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.close(output)
    return work()


def _interrupt(child: spawn.Child) -> None:
    try:
        signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return


def _show(reader: Reader, child: spawn.Child, told: int) -> bool:
    """Shows the log until the worker ends, or awaits a confirmation: then True."""
    while True:
        ready = reader.wait(child.pidfd, told)
        over = child.pidfd in ready
        listening = reader.show(last=over)
        if told in ready and not over and os.read(told, 1):
            reader.show(last=True)
            return True
        if over:
            return False
        if not listening:
            files.drop(f"{os.path.dirname(os.readlink(f'/proc/self/fd/{reader.descriptor}'))}/confirm")
            return False
