"""A session that is watched: it begins, is entered by who is to be watched, and left; what it needs goes with it.

What others call of this room has its name here.
"""

from __future__ import annotations

import os
from contextlib import suppress

from pyinfra_overlaymig.runner import files, linux
from pyinfra_overlaymig.runner.audit import auditd, hold, places, shared
from pyinfra_overlaymig.runner.audit.holder import Holder, scope
from pyinfra_overlaymig.runner.audit.netlink import Audit
from pyinfra_overlaymig.runner.audit.outcome import (
    begin_explaining,
    conclude,
    explain,
    finish_explaining,
    last_command,
    preflight,
    record_into,
    required,
    settle,
    summary,
    trace,
    unread,
)
from pyinfra_overlaymig.runner.audit.sweeping import sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Session",
    "begin_explaining",
    "conclude",
    "explain",
    "finish_explaining",
    "last_command",
    "open",
    "preflight",
    "record_into",
    "required",
    "settle",
    "state",
    "summary",
    "sweep",
    "trace",
    "unread",
]
_ANSWER = b"."

state = auditd.state


class Session:
    """What is known of one session; its files are in ``directory``. Use `open`."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._holder: Holder | None = None
        self._quiet = self._watched = (-1, -1)
        self._concluded = False

    @property
    def state(self) -> str:
        """`on`, or why it is not watched."""
        return files.first_line(f"{self.directory}/state")

    @property
    def on(self) -> bool:
        return self.state == "on"

    def _set(self, state: str) -> None:
        files.write_plain(f"{self.directory}/state", f"{state}\n")

    # Before, in the runner.

    def begin(self) -> None:
        """From here on nothing of the log is lost; the state says why where that cannot be."""
        if shared.there():
            self._hold(shared.log())
            return
        # Nobody else starts or ends a daemon until this session is known as open.
        with auditd.alone() as lock, Audit() as audit:
            if not auditd.holder(audit.status().pid):
                auditd.start(audit)
            used = auditd.use()
            try:
                self._hold(auditd.log(audit.status().pid), used, lock)
            finally:
                # It is the holder's now.
                os.close(used)
        if not self._holder:
            auditd.end()

    def _hold(self, path: str, *descriptors: int) -> None:
        files.write_plain(f"{self.directory}/log", f"{path}\n")
        try:
            log = hold.Log(path)
        except (FileNotFoundError, NotADirectoryError):
            self._set("no-log")
            return
        self._holder = Holder(self.directory, log, *descriptors)
        self._quiet, self._watched = os.pipe(), os.pipe()

    def watch(self) -> None:
        """Sets the rules, once it is known what they leave out; then process 1 of the stage goes on."""
        if not self._holder:
            return
        os.close(self._quiet[1])
        os.close(self._watched[0])
        # Nothing comes where it ended before.
        if os.read(self._quiet[0], 1):
            self._holder.watch()
            with suppress(BrokenPipeError):
                os.write(self._watched[1], _ANSWER)
        os.close(self._quiet[0])
        os.close(self._watched[1])

    # Meanwhile, in the process that is to be watched.

    def enter(self) -> None:
        """Puts this process, and all that it will start, into a fresh session, which `watch` has watched."""
        if not self._holder:
            return
        os.close(self._quiet[0])
        os.close(self._watched[1])
        upper = f"{os.path.dirname(self.directory)}/upper"
        if os.path.isdir(upper):
            # All that it can change are overlays over these.
            files.write_plain(f"{self.directory}/uppers", f"{linux.filesystem_type(upper)}\n")
        # The owner stays: what else audit records of the operator keeps the operator's name.
        try:
            _renew()
        except OSError:
            # Where the kernel holds a login to its session.
            self._set("fixed-session")
            return
        files.write_plain(f"{self.directory}/session", f"{files.read('/proc/self/sessionid')}\n")

    def quiet(self, root: str) -> None:
        """Notes what is mounted in ``root`` and is nobody's system: called when it is there. `watch` waits for it."""
        if self._holder:
            files.write_lines(f"{self.directory}/quiet", places.quiet(root))
            os.write(self._quiet[1], _ANSWER)
            os.close(self._quiet[1])

    def await_watched(self) -> None:
        """Returns once the session is watched, or cannot be; ends this process where the runner is gone."""
        if self._holder:
            if not os.read(self._watched[0], 1):
                os._exit(100)
            os.close(self._watched[0])

    def places(self, root: str, state: Mapping[str, str]) -> None:
        """Notes the devices of ``root`` and of the state paths in it, which lie at these places."""
        if self._holder:
            places.write(f"{self.directory}/places", places.of_stage(root, state))

    def inodes(self, upper: str, root: str, prefix: str) -> None:
        """Notes what audit's inode numbers are called of what ``upper`` holds, as ``root`` shows it."""
        if self._entered():
            places.write(f"{self.directory}/inodes", places.inodes(upper, root, prefix), more=True)

    def unwatched(self) -> None:
        """What follows is the runner's own work: it goes on in another session, which no rule names."""
        if self._entered():
            with suppress(OSError):
                _renew()

    # After it, in the runner.

    def leave(self) -> None:
        """Begins to take the session's records; its rules go after them, and nobody waits for that."""
        if self._holder:
            self._holder.leave(entered=self._entered())

    def conclude(self) -> str:
        """Waits until the records are taken; the state."""
        self.leave()
        if self._holder and not self._concluded:
            self._concluded = True
            if not self._holder.await_taken():
                self._set("unreadable")
        return self.state

    def summary(self) -> list[tuple[str, str]]:
        return summary(os.path.dirname(self.directory))

    def _entered(self) -> bool:
        return scope(self.directory)[0] is not None


def open(directory: str) -> Session:
    """Begins a session that can be watched, if there can be one: its state says so."""
    files.make_dirs(directory)
    session = Session(directory)
    files.write_plain(f"{directory}/state", f"{state()}\n")
    if session.on:
        session.begin()
    return session


def _renew() -> None:
    owner = files.read("/proc/self/loginuid")
    descriptor = os.open("/proc/self/loginuid", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"0" if owner == "4294967295" else owner.encode())
    finally:
        os.close(descriptor)
