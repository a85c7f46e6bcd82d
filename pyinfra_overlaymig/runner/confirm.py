"""Confirmation: the operator's side says over a new connection that the machine can still be reached after a switch.

Without it within the limit, the machine goes back by itself.

  JOURNAL/confirm              the limit in seconds; removed once it is confirmed. A journal that has it and was
                               interrupted is taken back
  /run/system-migrate/confirm/ awaited    renamed to `given` by the one side, to `expired` by the other
                               outcome    the exit code of what was confirmed or not; how the machine is then
"""

from __future__ import annotations

import os
import re
import select

from pyinfra_overlaymig.format.limits import LONGEST_CONFIRM
from pyinfra_overlaymig.format.paths import AWAITED, CONFIRM
from pyinfra_overlaymig.runner import files, linux, worker
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import say, usage, warn

HERE = CONFIRM
_SECONDS = re.compile(r"[1-9][0-9]{0,9}")


def seconds(text: str) -> int:
    """The limit that ``text`` says; leaves with 100 unless it can be one."""
    if _SECONDS.fullmatch(text) and int(text) <= LONGEST_CONFIRM:
        return int(text)
    raise usage(f"--confirm takes 1 to {LONGEST_CONFIRM} seconds, not '{text}'", "system-migrate apply --confirm 60 -")


def ask(journal: str, limit: int | None) -> None:
    """From now on ``journal`` has to be confirmed; not so without a limit."""
    files.drop(HERE)
    if limit is not None:
        files.write_file(f"{journal}/confirm", f"{limit}\n")


def asked(journal: str) -> bool:
    return files.there(f"{journal}/confirm")


def awaited(journal: str) -> bool:
    """Waits for the confirmation, if one was asked for: whether it came."""
    if not asked(journal):
        return True
    limit = int(files.first_line(f"{journal}/confirm"))
    files.make_dirs(HERE)
    say(f"waiting up to {limit} s for a new connection")
    events = linux.inotify(HERE, linux.IN_MOVED_TO)
    files.mark(AWAITED)
    if worker.awaiting is not None:
        worker.awaiting.tell()
    _wait(events, Deadline(limit))
    os.close(events)
    try:
        os.rename(AWAITED, f"{HERE}/expired")
    except FileNotFoundError:
        files.drop(f"{journal}/confirm")
        return True
    warn(f"no new connection came within {limit} s: this machine may be out of reach")
    return False


def _wait(events: int, deadline: Deadline) -> None:
    poll = select.poll()
    poll.register(events, select.POLLIN)
    while files.there(AWAITED) and not deadline.over():
        poll.poll(deadline.milliseconds())
        linux.drain(events)


def expired() -> bool:
    """Whether what was asked for last did not come in time."""
    return files.there(f"{HERE}/expired")


def forget() -> None:
    """What awaited it was killed: whoever holds the lock next does not."""
    if files.there(AWAITED):
        files.drop(AWAITED)


def tell_outcome(code: int, words: str = "") -> None:
    """Tells the side that confirmed how it ended; ``words``: how the machine is that was taken back."""
    if os.path.isdir(HERE):
        files.write_file(f"{HERE}/outcome", f"{code}\n{words}\n")


def give() -> bool:
    """Confirms what awaits it; False when nothing does, or did."""
    if not os.path.isdir(HERE):
        return False
    try:
        os.rename(AWAITED, f"{HERE}/given")
    except FileNotFoundError:
        # Given before, or too late.
        return True
    return True


def outcome() -> int | None:
    """How it ended, None as long as it has not."""
    found = files.first_line(f"{HERE}/outcome")
    return int(found) if found else None


def words() -> str:
    """How the machine is that was taken back, as far as that was told."""
    return "".join(files.lines(f"{HERE}/outcome")[1:2])
