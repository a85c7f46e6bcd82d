"""confirm: says, over a new connection, that this machine can be reached after a switch that awaits it; then waits
for the end of what was confirmed, and leaves with its exit code.
"""

from __future__ import annotations

import os
import select

from pyinfra_overlaymig.format import exits
from pyinfra_overlaymig.runner import base, confirm, linux, lock, store
from pyinfra_overlaymig.runner.say import Leave, say, usage, warn

_LOOK = 500
"""Milliseconds: whoever would tell the outcome may be killed, which no file tells."""


def main(arguments: list[str]) -> int:
    if arguments:
        raise usage("confirm takes no arguments", "system-migrate confirm")
    base.need_root()
    if not confirm.give():
        return 0
    code = _outcome()
    if code == 0:
        say(f"confirmed: generation {store.current()} is running")
    elif code == exits.REVERTED:
        warn(f"it was taken back: {confirm.words() or 'the reason is in its log'}")
    else:
        raise Leave(20, "what awaited the confirmation was killed", "run: system-migrate recover")
    return code


def _outcome() -> int:
    events = linux.inotify(confirm.HERE, linux.IN_MOVED_TO)
    poll = select.poll()
    poll.register(events, select.POLLIN)
    while (code := confirm.outcome()) is None and not lock.free():
        poll.poll(_LOOK)
        linux.drain(events)
    os.close(events)
    # It may have come between the two questions.
    code = confirm.outcome() if code is None else code
    return 20 if code is None else code
