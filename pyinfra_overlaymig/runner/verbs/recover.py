"""recover: finishes or undoes what was interrupted, and says what it did. Doing it twice changes nothing more."""

from __future__ import annotations

from pyinfra_overlaymig.runner import lock, recovery, store
from pyinfra_overlaymig.runner.say import say, usage


def main(arguments: list[str]) -> int:
    if arguments:
        raise usage("recover takes no arguments", "system-migrate recover")
    store.layout()
    lock.take("recover")
    recovery.recover(live=True)
    say(f"generation {store.current()} is current, {store.running()} is running")
    return 0
