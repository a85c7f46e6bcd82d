"""The child that holds the log as long as its session is open, has it watched, and takes the records in the end.

Descriptors hold the log, so somebody has to sleep on its directory meanwhile; the runner itself waits for the script.
Nor does it wait for what the kernel takes its time for: deleting rules, and closing what inotify was asked with.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NamedTuple

from pyinfra_overlaymig.runner import files, linux, lock, spawn
from pyinfra_overlaymig.runner.audit import auditd, hold, rules, shared
from pyinfra_overlaymig.runner.audit.netlink import Audit

_ANSWER, _WATCH, _LEAVE, _STOP = b".", b"w", b"l", b"s"
_NAME = "audit-hold"


class Holder:
    """That child, as its parent knows it."""

    def __init__(self, directory: str, log: hold.Log, used: int = -1, lock: int = -1) -> None:
        """Begins to hold ``log``.

        ``used`` keeps a daemon of ours from being ended, now by the child; ``lock`` is this process's alone.
        """
        told, self._orders = os.pipe()
        self._done, tells = os.pipe()
        self._open = True

        def work() -> None:
            os.close(self._orders)
            os.close(self._done)
            if lock >= 0:
                os.close(lock)
            _keep(directory, log, _Child(told, tells, used))

        spawn.fork(work)
        log.close()
        os.close(told)
        os.close(tells)

    def watch(self) -> None:
        """Has the session watched that was entered, or the state says why not."""
        self._tell(_WATCH)
        os.read(self._done, 1)

    def leave(self, *, entered: bool) -> None:
        """The session is over; where nobody ``entered`` it there is nothing to take."""
        if self._open:
            self._open = False
            self._tell(_LEAVE if entered else _STOP)
            os.close(self._orders)

    def await_taken(self) -> bool:
        """Waits until the records are taken; whether they are. What it has to do after that, nobody waits for."""
        try:
            return bool(os.read(self._done, 1))
        finally:
            os.close(self._done)

    def _tell(self, order: bytes) -> None:
        # One that is gone does not answer, either.
        with suppress(BrokenPipeError):
            os.write(self._orders, order)


class _Child(NamedTuple):
    """Its own ends of the pipes, and what it holds."""

    orders: int
    done: int
    used: int


def _keep(directory: str, log: hold.Log, own: _Child) -> None:
    _prepare()
    while (order := hold.until_told(log, own.orders)) == _WATCH:
        _watch(directory)
        os.write(own.done, _ANSWER)
    if not order:
        # The runner is gone: the next verb puts in order what it has left.
        return
    number = scope(directory)[0] if order == _LEAVE else None
    if number is not None:
        _take(directory, log)
    # From here on it ends by itself, whatever becomes of the runner.
    linux.set_parent_death_signal(0)
    os.write(own.done, _ANSWER)
    if own.used >= 0:
        if number is not None:
            with Audit() as audit:
                rules.end(audit, lambda session: session == number)
        os.close(own.used)
        auditd.end()


def _prepare() -> None:
    """Gives up what others wait for the end of."""
    lock.release()
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(_NAME)


def _watch(directory: str) -> None:
    number, uppers, devices = scope(directory)
    if number is None:
        return
    if shared.there():
        lost, done = shared.ask("begin", number, uppers, devices), True
    else:
        with Audit() as audit:
            lost = str(audit.status().lost)
            done = rules.begin(audit, number, uppers, devices)
    if lost is not None:
        files.append_line(f"{directory}/lost", lost)
    if lost is None or not done:
        files.write_plain(f"{directory}/state", "no-rules\n")


def _take(directory: str, log: hold.Log) -> None:
    try:
        missing = hold.take(log, f"{directory}/records")
    except OSError:
        missing = "unreadable"
    if missing:
        files.write_plain(f"{directory}/state", f"{missing}\n")
    files.append_line(f"{directory}/lost", _lost(directory))


def _lost(directory: str) -> str:
    number, uppers, devices = scope(directory)
    if shared.there():
        return shared.ask("end", number or 0, uppers, devices) or "unknown"
    with Audit() as audit:
        return str(audit.status().lost)


def scope(directory: str) -> tuple[int | None, int, list[str]]:
    """A session: its id, None where nobody entered it; the type of its uppers, or 0; devices that are left out."""
    number = files.first_line(f"{directory}/session")
    uppers = int(files.first_line(f"{directory}/uppers") or 0)
    return int(number) if number else None, uppers, files.lines(f"{directory}/quiet")
