"""Knows and ends a machine's processes; it must signal none that is not provably ours."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path
from typing import TextIO

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab.locking import write_file

_END = 20.0
"""Seconds within which a killed machine must be gone."""
_INIT_GRACE = 2.0
"""Seconds a supervising process is given to write down its machine's PID 1."""


def recorded(record: Path) -> int | None:
    """The pid in ``record`` ("PID START BOOT"), or None unless that very process still lives."""
    try:
        pid, start, boot = record.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if boot == _boot_id() and _start_time(int(pid)) == start else None


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended yet."""
    return pid > 0 and _start_time(pid) is not None


def write(record: Path, pid: int) -> None:
    """Note the process ``pid`` in ``record``, as `recorded` reads it."""
    write_file(record, f"{pid} {_start_time(pid)} {_boot_id()}\n")


def end(directory: Path) -> None:
    """End the machine in ``directory`` and wait until every process of it is gone.

    Its PID 1 is killed: the kernel then kills and reaps the whole pid namespace before the
    supervising process ends and gives up the lock.
    """
    if not directory.is_dir():
        return
    with (directory / "lock").open("a") as lock:
        begun = time.monotonic()
        while not _try_lock(lock):
            waited = time.monotonic() - begun
            if not kill(directory / "init") and waited > _INIT_GRACE:
                kill(directory / "supervisor")
            if waited > _END:
                raise OverlaymigError(
                    f"{directory.name} does not end",
                    hint=f"`fuser {directory}/lock` names the process that holds it",
                )
            time.sleep(0.02)


def end_strays(pids: list[int]) -> None:
    """Kill ``pids``, read a moment ago from a network namespace of ours, and wait for their end."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + _END
    while any(_start_time(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def kill(record: Path, sign: signal.Signals = signal.SIGKILL) -> bool:
    """Signal the very process in ``record``; whether it was there."""
    pid = recorded(record)
    if pid is None:
        return False
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Asked again now that the descriptor pins the process: the pid may have been recycled.
        if recorded(record) == pid:
            signal.pidfd_send_signal(fd, sign)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat, or None for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
