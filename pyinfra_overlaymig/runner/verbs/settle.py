"""settle: the part of boot that has to wait for s6. A migration that was past its commit when the power went is
finished (services, health check, mark) or reverted; then all services have to get ready, or the boot counts as failed.

Not for people: `recover` does the first part.
"""

from __future__ import annotations

import time

from pyinfra_overlaymig.runner import fallback, lock, readiness, recovery, services, store, supervision, temporary
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import attempt, warn

_LOOK = 0.02
_BEGIN_WITHIN = 10.0
"""Seconds within which s6-svscan runs, where it is to run."""


def main(_: list[str]) -> int:
    booted = store.running()
    supported = _supported()
    if not store.applied(booted):
        lock.take("recover")
        if not attempt(lambda: recovery.recover(live=True)):
            warn("the recovery was not finished: system-migrate recover goes on with it")
        lock.release()
    # Without the lock: a service that never gets ready must not keep operators out.
    late = readiness.late() if supported else [] if services.is_nobodys() else readiness.expected()
    attempt(temporary.clear)
    lock.take("boot", wait=True, aloud=False)
    if store.current() != booted:
        return 0
    if not late:
        fallback.forget()
    else:
        _failed(booted, late)
    return 0


def _supported() -> bool:
    """Whether s6-svscan runs: it is given time to begin."""
    deadline = Deadline(_BEGIN_WITHIN)
    while not services.supported() and not deadline.over():
        # Its directory and the control in it come one after the other: nothing that is there yet tells of both.
        time.sleep(_LOOK)
    return services.supported()


def _failed(booted: int, late: list[str]) -> None:
    failed = fallback.failed_boots(booted) or fallback.count(booted)
    warn(f"not ready after this boot: {' '.join(late)} (boot {failed} of {fallback.AFTER} before falling back)")
    if failed >= fallback.AFTER:
        fallback.fall_back()
        recovery.recover(live=True)
        for name in late:
            if services.defined(name) and services.is_supervised(name):
                # It may have given up for good, in a generation that is gone.
                supervision.start(name)
