"""Runs a program under the filter, counts the runner's calls, and strikes before the one whose turn it is.

A process of its own, with nothing else in it: whoever answers calls must not wait for anything that makes them, nor
for a thread that holds Python's lock. It stays as long as anything runs under its filter, since a call that nobody
answers any more would fail. What to do comes as one JSON argument, see `Order`; what was done is in a `Tally`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import select
import signal
import socket
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.crash import calls, disk, processes, seccomp
from tests.crash.modes import Mode
from tests.crash.owner import Owner
from tests.crash.seccomp import EXEC, Stopped

_SET_CHILD_SUBREAPER = 36
_REAP = 1000
"""Milliseconds after which what has ended is asked for its status, when nothing else happens."""
_libc = ctypes.CDLL(None)
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Order:
    """Strike before call ``at``, or, where ``when`` is given, before the call that they lead to; at 0, at none.

    ``when``: patterns of calls' texts; each is looked for after the one before it was met, the last one is struck.
    ``machine``: process 1 of the machine; 0: the program is what boots one. ``directory``: where the lab keeps it.
    ``output``: where the program's output goes, empty: where this one's goes. ``log``: where texts of calls go.
    """

    argv: list[str]
    directory: str
    tally: str
    mode: str = Mode.KILL.value
    at: int = 0
    when: list[str] = field(default_factory=list)
    machine: int = 0
    output: str = ""
    log: str = ""

    def command(self) -> list[str]:
        """The argv that carries it out."""
        program = "import sys; sys.path.insert(0, sys.argv[1]); from tests.crash import supervise; supervise.main()"
        return [sys.executable, "-S", "-c", program, str(ROOT), json.dumps(asdict(self))]


class Tally:
    """A file with what is known so far: how many calls were counted, and the one that was struck."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def count(self, number: int) -> None:
        os.pwrite(self._file, f"{number:10}\n".encode(), 0)

    def struck(self, text: str) -> None:
        os.pwrite(self._file, os.fsencode(json.dumps(text)) + b"\n", 11)


def read_tally(path: Path) -> tuple[int, str]:
    """How many calls were counted, and the text of the one that was struck, empty when none was."""
    try:
        number, _, rest = path.read_text(errors="replace").partition("\n")
    except FileNotFoundError:
        return 0, ""
    return int(number or 0), json.loads(rest) if rest.strip() else ""


class Supervisor:
    """Answers the calls of one tree."""

    def __init__(self, order: Order, top: int, listener: int) -> None:
        self.order, self.top, self.listener = order, top, listener
        self.mode = Mode(order.mode)
        self.owner = Owner(top, order.machine)
        self.tally = Tally(Path(order.tally))
        self.number = 0
        self.struck = False
        self.patterns = [re.compile(pattern) for pattern in order.when]
        self.disk = disk.Full(Path(order.directory) / "data")
        self.log = Path(order.log).open("w", errors="replace", buffering=1) if order.log else None  # noqa: SIM115

    def answer(self, stopped: Stopped) -> None:
        """Let a call go on, unless it is its turn."""
        if stopped.name in EXEC:
            self.owner.executes(stopped)
            seccomp.go_on(self.listener, stopped)
        elif not self.owner.is_runner(stopped) or not calls.changes(stopped):
            seccomp.go_on(self.listener, stopped)
        elif self._is_its_turn(stopped):
            self.tally.struck(f"{self.number}: {calls.text(stopped)}")
            self.struck = True
            self._strike(stopped)
        elif self.struck and self.mode is Mode.SPACE and not self.disk.has_room(stopped):
            seccomp.fail(self.listener, stopped, errno.ENOSPC)
        else:
            seccomp.go_on(self.listener, stopped)

    def _is_its_turn(self, stopped: Stopped) -> bool:
        if self.struck:
            return False
        self.number += 1
        self.tally.count(self.number)
        text = ""
        if self.log or self.patterns:
            text = calls.text(stopped)
        if self.log:
            self.log.write(f"{stopped.pid} {text}\n")
        if self.patterns:
            if not self.patterns[0].search(text):
                return False
            self.patterns.pop(0)
            return not self.patterns
        return self.number == self.order.at

    def _strike(self, stopped: Stopped) -> None:
        match self.mode:
            case Mode.KILL:
                self._kill(stopped.pid)
            case Mode.POWER:
                self._cut_power()
            case Mode.FAIL:
                seccomp.fail(self.listener, stopped, errno.EIO)
            case Mode.SPACE:
                self.disk.fills()
                full = not self.disk.has_room(stopped)
                seccomp.fail(self.listener, stopped, errno.ENOSPC) if full else seccomp.go_on(self.listener, stopped)
            case Mode.BLOCKS | Mode.INODES:
                disk.fill(Path(self.order.directory) / "data", self.mode)
                seccomp.go_on(self.listener, stopped)

    def _kill(self, pid: int) -> None:
        """All that the verb is made of; of a boot, the part that makes this call, with all below it."""
        if self.order.machine:
            # Those whose parent is gone are no descendants any more: they were seen at some call.
            seen = {self.top} | {one for one in self.owner.seen if self._is_below(one)}
            processes.kill_all(seen, self.top, self.reap)
        elif (verb := self.owner.verb(pid)) == self.owner.machine:
            self._cut_power()
        else:
            processes.kill_all([verb], reap=lambda: False)

    def reap(self) -> bool:
        """Ask for the status of what has lost its parent: nobody on the host may, and until then it is not gone."""
        for pid in processes.children(os.getpid()):
            if pid != self.top:
                os.waitpid(pid, os.WNOHANG)
        return True

    def _is_below(self, pid: int) -> bool:
        """Whether a process that was seen under the filter is still that one: filters are never taken off."""
        try:
            return "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _cut_power(self) -> None:
        """The machine's process 1 ends, and with it all that there is of it."""
        with contextlib.suppress(FileNotFoundError):
            processes.send(int((Path(self.order.directory) / "init").read_text().split()[0]))


def main() -> None:
    """Carry out the order in the last argument; the program's exit code goes to standard output as a line."""
    order = Order(**json.loads(sys.argv[-1]))
    top, listener = start(order)
    # An interrupt is for who has given the order.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    supervisor = Supervisor(order, top, listener)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    ended = os.pidfd_open(top)
    poll.register(ended, select.POLLIN)
    left = True
    while left or ended:
        events = poll.poll(_REAP)
        if not events:
            supervisor.reap()
        for descriptor, event in events:
            if descriptor == ended:
                poll.unregister(ended)
                os.close(ended)
                ended = 0
                _tell(os.waitpid(top, 0)[1], order)
            elif event & select.POLLIN:
                if stopped := seccomp.receive(listener):
                    supervisor.answer(stopped)
            else:
                # Nothing runs under the filter any more.
                poll.unregister(listener)
                left = False


def _tell(status: int, order: Order) -> None:
    """The exit code, for who waits for it; what the program left running is still to be answered."""
    if order.output:
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(1)


def start(order: Order) -> tuple[int, int]:
    """Start the program under the filter: its pid, and the descriptor to answer its calls at."""
    _libc.prctl(_SET_CHILD_SUBREAPER, 1)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            if order.output:
                output = os.open(order.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(output, 1)
                os.dup2(output, 2)
            listener = seccomp.install()
            socket.send_fds(theirs, [b"x"], [listener])
            os.close(listener)
            os.execvpe(order.argv[0], order.argv, os.environ)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(descriptors[0], False)
    return pid, descriptors[0]
