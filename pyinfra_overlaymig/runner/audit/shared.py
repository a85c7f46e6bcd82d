"""Shared audit: a keeper outside sets the rules for a machine that may not; FORMAT.md ("Audit") has how it is asked."""

from __future__ import annotations

import fcntl
import os
import select
import stat
from contextlib import suppress

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import files, linux
from pyinfra_overlaymig.runner.clock import Deadline

_PATIENCE = 5.0


def there() -> bool:
    """Whether this machine is to ask a keeper."""
    try:
        return stat.S_ISFIFO(os.stat(f"{paths.AUDIT_SHARED}/ask").st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # Nobody may look into the running root out of a user namespace of its own.
        return False


def alive() -> bool:
    """Whether there is a keeper: it holds its lock as long as it lives."""
    if not os.path.isfile(f"{paths.AUDIT_SHARED}/name"):
        return False
    lock = os.open(f"{paths.AUDIT_SHARED}/lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def log() -> str:
    """The audit log, as it can be opened from here."""
    return f"{paths.AUDIT_SHARED}/log/{files.first_line(f'{paths.AUDIT_SHARED}/name')}"


def ask(what: str, session: int, uppers: int, devices: list[str]) -> str | None:
    """Asks for `begin` or `end`: the kernel's count of lost records, None where nobody answers, which is a no."""
    answers = f"{paths.AUDIT_SHARED}/answers"
    answer = f"{answers}/{session}.{what}"
    # Not closed: the kernel would take 15 ms for that.
    watch = linux.inotify(answers, linux.IN_MOVED_TO)
    _write(" ".join([what, str(session), str(uppers), *devices]))
    deadline = Deadline(_PATIENCE)
    while not os.path.isfile(answer):
        if deadline.over():
            return None
        select.select([watch], [], [], deadline.left())
        linux.drain(watch)
    return files.first_line(answer)


def _write(question: str) -> None:
    # For reading too: without a keeper there is no reader, and nobody is to wait for one.
    ask = os.open(f"{paths.AUDIT_SHARED}/ask", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            os.write(ask, f"{question}\n".encode())
    finally:
        os.close(ask)
