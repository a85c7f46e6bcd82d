"""One writer at a time. The kernel frees the flock when its last holder dies; the owner's record is for people."""

from __future__ import annotations

import fcntl
import os
import re
import signal
from typing import NamedTuple

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.format.paths import LOCK, ROLLBACK, STAGING
from pyinfra_overlaymig.runner import files
from pyinfra_overlaymig.runner.clock import now
from pyinfra_overlaymig.runner.say import refused, say

_FLOCK = f"{LOCK}/flock"
_OWNER = f"{LOCK}/owner"
_PATIENCE = 1.0
"""Seconds: `status` looks at the lock by taking it for an instant."""

_held: list[int] = []


class Owner(NamedTuple):
    """Who holds the lock: as `status` tells it, all of them text."""

    who: str = ""
    source: str = ""
    pid: str = ""
    boot_id: str = ""
    since: str = ""
    verb: str = ""
    id: str = ""


class _TimeIsUp(Exception):
    pass


def take(verb: str, id: str = "", *, wait: bool = False, aloud: bool = True) -> None:
    """Holds the lock until this process and its children end, or `release`.

    Leaves with 3, naming the holder, when another process has it; with ``wait``, waits, and shows what that does unless
    it is not to be ``aloud``.
    """
    files.make_dirs(LOCK)
    # Not to be written: nothing is, and one that somebody made immutable would shut every way.
    descriptor = os.open(_FLOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # Whoever took it has to live with a dead terminal from here on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if not _taken(descriptor):
        if not wait:
            os.close(descriptor)
            raise _locked()
        _wait(descriptor) if aloud else fcntl.flock(descriptor, fcntl.LOCK_EX)
    _held.append(descriptor)
    record(verb, id)


def release() -> None:
    """Gives it up; children that have it go on holding it."""
    while _held:
        os.close(_held.pop())


def record(verb: str, id: str = "") -> None:
    """Says who holds the lock, for the others to read."""
    text = {
        "who": os.environ.get("OVERLAYMIG_WHO") or os.environ.get("SUDO_USER") or "root",
        "from": (os.environ.get("SSH_CONNECTION") or "local").split(" ")[0],
        "pid": str(os.getpid()),
        "boot_id": files.first_line("/proc/sys/kernel/random/boot_id"),
        "since": now(),
        "verb": verb,
        "id": id,
    }
    plain = {key: re.sub(r"[^A-Za-z0-9@._+:-]", "_", value) for key, value in text.items()}
    files.write_file(_OWNER, "".join(f"{key} {value}\n" for key, value in plain.items()))


def owner() -> Owner:
    """Who holds the lock, or held it last."""
    found = dict(lines.pairs(files.read(_OWNER)))
    return Owner(*(found.get(key, "") for key in ("who", "from", "pid", "boot_id", "since", "verb", "id")))


def free() -> bool:
    """Whether nobody holds the lock."""
    try:
        descriptor = os.open(_FLOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _taken(descriptor: int) -> bool:
    def stop(*_: object) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except _TimeIsUp:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def _locked() -> Exception:
    holder = owner()
    doing = f"{holder.verb} {holder.id} (pid {holder.pid or '?'})"
    return refused(
        f"locked by {holder.who or 'somebody'} from {holder.source or 'nowhere'}, {holder.since}: {doing}",
        "it goes on by itself; run this again when it is done, or look at: system-migrate status",
    )


def _wait(descriptor: int) -> None:
    """Shows what the holder is doing, where it has a log, until it is done."""
    from pyinfra_overlaymig.runner import follow, spawn

    holder = owner()
    say(f"waiting for {holder.who} from {holder.source}: {holder.verb} {holder.id}, since {holder.since}")
    log = f"{ROLLBACK}/log" if holder.verb == "rollback" else f"{STAGING}/{holder.id}/log"
    reader = spawn.fork(lambda: follow.show_forever(log))
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.kill(reader.pid, signal.SIGKILL)
    spawn.wait(reader)
