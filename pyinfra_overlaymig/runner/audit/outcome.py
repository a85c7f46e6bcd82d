"""What becomes of a session: its state and summary, who did it in the record of its migration, or evidence.

All of it from what is in the stage, so that whoever finishes a migration after a crash can do it.
"""

from __future__ import annotations

import fcntl
import os

from pyinfra_overlaymig.format import lines
from pyinfra_overlaymig.runner import copies, files, spawn
from pyinfra_overlaymig.runner.audit import auditd
from pyinfra_overlaymig.runner.say import Leave, attempt, refused, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.format.changes import Change
    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.runner.audit.session import Session
    from pyinfra_overlaymig.runner.spawn import Child

_KEYS = ("audit", "events", "lost", "unexplained")


def required(limits: Limits) -> bool:
    """Whether a migration must not run unwatched."""
    return limits.audit == "required"


def preflight(limits: Limits, id: str) -> None:
    """Leaves with 3 when it requires audit and there is none."""
    if required(limits) and (state := auditd.state()) != "on":
        raise refused(
            f"{id} requires audit, which is not to be had here: {state}",
            'install auditd in the base, or take "audit: required" out of the manifest',
        )


def conclude(stage: str, session: Session | None, limits: Limits) -> None:
    """Waits until all records of a stage's session are taken; raises when its migration requires audit and was not
    watched to its end. What they say is read after the commit, which needs none of it.
    """
    if session is not None:
        session.conclude()
    if required(limits):
        _check(stage)


def _check(stage: str) -> None:
    state = files.first_line(f"{stage}/audit/state")
    if state != "on":
        raise Leave(9, f"this migration requires audit, which is: {state}")


def begin_explaining(stage: str) -> Child | None:
    """Begins to explain a stage that is sealed, behind all else; None where there is nothing to read."""
    if not os.path.isfile(f"{stage}/audit/records"):
        return None

    def work() -> None:
        from pyinfra_overlaymig.runner.audit import explaining

        explaining.from_lists(stage)

    return spawn.fork(work)


def settle(child: Child | None) -> None:
    """Waits for what `begin_explaining` began, whatever comes of it; before its stage is taken away."""
    if child is not None:
        spawn.wait(child)


def unread(stage: str) -> None:
    """Waits until nobody explains the stage any more: what a runner began that was killed may not have noticed."""
    try:
        lock = os.open(f"{stage}/audit/lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.close(lock)


def finish_explaining(stage: str, record: str, child: Child | None) -> None:
    """Adds who did it to the record of a migration, before it is applied; raises as `conclude`."""
    if child is None:
        return
    if spawn.wait(child) != 0:
        files.write_plain(f"{stage}/audit/state", "unreadable\n")
        files.drop(f"{stage}/audit/who", f"{stage}/audit/unexplained")
    found = summary(stage)
    if any(value != "0" for key, value in found if key in ("lost", "unexplained")):
        warn(f"audit: {' '.join(f'{key} {value}' for key, value in found)} ")
    if lines.value(files.read(f"{stage}/limits"), "audit") == "required":
        _check(stage)
    record_into(stage, record)
    kept = [(key, value) for key, value in lines.pairs(files.read(f"{record}/record")) if key not in _KEYS]
    files.write_file(f"{record}/record", lines.join([*kept, *found]))


def summary(stage: str) -> list[tuple[str, str]]:
    """What a record says of a session: audit, and where it was on and is explained: events lost unexplained."""
    here = f"{stage}/audit"
    found = [("audit", files.first_line(f"{here}/state") or "unknown")]
    unexplained = files.first_line(f"{here}/unexplained")
    if unexplained:
        lost = files.lines(f"{here}/lost")
        known = len(lost) > 1 and all(word.isdecimal() for word in lost[:2])
        found += [
            ("events", files.first_line(f"{here}/seen")),
            ("lost", str(int(lost[1]) - int(lost[0])) if known else "unknown"),
            ("unexplained", unexplained),
        ]
    return found


def record_into(stage: str, record: str) -> None:
    """Adds who.list and audit.gz to the record of a migration."""
    for source, name in ((f"{stage}/audit/who", "who.list"), (f"{stage}/audit.gz", "audit.gz")):
        if os.path.isfile(source) and os.path.realpath(source) != os.path.realpath(f"{record}/{name}"):
            copies.copy_entry(source, f"{record}/{name}.new")
            os.rename(f"{record}/{name}.new", f"{record}/{name}")


def trace(stage: str, session: Session | None) -> None:
    """All that there is of a session that came to nothing: audit.gz, as evidence."""
    if session is not None:
        session.conclude()
    if os.path.isfile(f"{stage}/audit/records") and not os.path.isfile(f"{stage}/audit.gz"):
        from pyinfra_overlaymig.runner.audit import explaining

        # Whatever comes of it: there is less evidence, no more.
        attempt(lambda: explaining.keep_trace(stage))


def last_command(stage: str) -> str:
    """The last program that the script of a stage started, with its arguments; empty where nobody watched."""
    if not os.path.isfile(f"{stage}/audit/records"):
        return ""
    from pyinfra_overlaymig.runner.audit import explaining

    return explaining.keep_trace(stage)


def explain(stage: str, changes: Iterable[Change], times: set[str], unchanged: set[str]) -> None:
    """See `explaining.explain`."""
    from pyinfra_overlaymig.runner.audit import explaining

    explaining.explain(stage, changes, times, unchanged)
