"""capture NAME [--] CMD…: runs CMD in the running root, watched: its record says what it changed, and who did.

What it changes stays, in the upper. No stage, no layer, no lock: a long command must not keep migrations from being
applied.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.format import FORMAT, lines
from pyinfra_overlaymig.format.ids import capture_name, valid_id
from pyinfra_overlaymig.format.paths import CAPTURES, LIVE, UPPER
from pyinfra_overlaymig.runner import catch_up, files, spawn, store
from pyinfra_overlaymig.runner.audit import places
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.clock import now
from pyinfra_overlaymig.runner.say import Leave, attempt, invalid, refused, say, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_TERMINATED = 143
_AT_LEAST = 2


def main(arguments: list[str]) -> int:
    """Makes captures/NAME; fails with 1 when the command does."""
    if len(arguments) < _AT_LEAST:
        hint = "system-migrate capture make_install -- make -C /usr/src/tool install"
        raise usage("capture takes a name and a command", hint)
    name, *command = arguments
    if command[0] == "--":
        command = command[1:]
    if not capture_name(name) or valid_id(name):
        hint = "lower case letters, digits, _ and -, and not the form of a migration id"
        raise invalid(f"'{name}' cannot name a capture", hint)
    if (state := audit.state()) != "on":
        raise refused(f"what a command changes cannot be seen here: audit is {state}", "install auditd in the base")
    store.layout()
    files.make_dirs(CAPTURES)
    directory = f"{CAPTURES}/.{name}.{os.getpid()}"
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        return _capture(name, directory, command)
    finally:
        files.drop(directory)


def _interrupt(*_: object) -> NoReturn:
    raise Leave(_TERMINATED)


def _capture(name: str, directory: str, command: list[str]) -> int:
    """In ``directory``, which becomes the record."""
    session = audit.open(f"{directory}/audit")
    places.write(f"{directory}/audit/places", places.of_machine())
    try:
        child = spawn.fork(lambda: _become(session, command), orphan=True)
        session.watch()
        status = spawn.wait(child)
    finally:
        session.conclude()
    if os.path.isfile(f"{directory}/audit/records") and not attempt(lambda: _explain(directory)):
        files.write_plain(f"{directory}/audit/state", "unreadable\n")
    if not files.there(f"{directory}/changes.list"):
        files.mark(f"{directory}/changes.list")
    count = len(places.read(f"{directory}/changes.list"))
    record = [("format", FORMAT), ("at", now()), ("status", status), *session.summary(), ("files", count)]
    files.write_plain(f"{directory}/record", lines.join(record))
    audit.record_into(directory, directory)
    files.drop(f"{directory}/audit", f"{CAPTURES}/{name}")
    os.rename(directory, f"{CAPTURES}/{name}")
    say(f"captured {count} changes: system-migrate diff {name}")
    if status:
        raise Leave(1, f"the command failed with status {status}", "what it changed until then is recorded, and stays")
    return 0


def _explain(directory: str) -> None:
    from pyinfra_overlaymig.runner.audit import captured

    captured.explain(directory, f"{UPPER}/{catch_up.live()}/upper")


def _become(session: audit.Session, command: list[str]) -> None:
    session.enter()
    session.quiet("")
    session.await_watched()
    spawn.become(command, root=LIVE)
