"""Lets a lab's machines capture who changes what: they share one kernel, whose audit obeys no inner pid namespace.

A keeper runs beside the machines. A runner asks it, through a FIFO, to set the rules of one session and to delete
them; the log it reads itself. A keeper uses the auditd that runs, without changing it, or starts one where none does.

LAB/audit/                  bound into every machine at /run/overlaymig-audit
  lock                      flock held by the keeper while it lives
  keeper                    "PID START BOOT" of the keeper
  ask                       FIFO: `begin SESSION TYPE DEVICE…` or `end SESSION TYPE DEVICE…`
  sessions/<session>        the rules of this session may be set
  answers/<session>.begin   the kernel's count of lost records, then; answers/<session>.end likewise
  source -> …               the directory of the audit log, bound over `log` in every machine
  name                      the log's name in there
CACHE/audit/                auditd, where it is ours: its configuration and log; `users`: flock shared by all keepers
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyinfra_overlaymig.lab import auditd, grace, prerequisites, process
from pyinfra_overlaymig.lab.layout import Lab
from pyinfra_overlaymig.lab.locking import Report, locked, write_file
from pyinfra_overlaymig.lab.run import detach
from pyinfra_overlaymig.runner.audit import rules
from pyinfra_overlaymig.runner.audit.netlink import Audit, Rule

_QUESTION = re.compile(r"(begin|end) ([0-9]{1,10}) ([0-9]{1,10})((?: [0-9]{1,7}(?::[0-9]{1,7})?)*) *")
_PROGRAM = f"from {__name__} import main; main()"
_LOST = 2.0
"""Seconds after which the rules of a session without processes are deleted: its runner was killed."""
_READ_WITHIN = 60.0
"""Seconds for which an answer stays."""
_WAITING = 64
"""So many sessions may wait for their rules to be deleted."""


def start(lab: Lab, report: Report) -> None:
    """Have a keeper for the machines of ``lab``, unless this host cannot: then say why."""
    if not shutil.which("auditd"):
        report("who changes what is not captured here: install the package auditd, then run this again")
        return
    try:
        auditd.status()
    except OSError:
        report("who changes what is not captured here: this kernel has no audit, or a container may not use it")
        return
    if _lives(lab):
        return
    leave(lab)
    for directory in (lab.audit / "answers", lab.audit / "sessions", lab.audit / "log"):
        directory.mkdir(parents=True, exist_ok=True)
    # Machines see it too: who of their users may read the lock may hold it for ever.
    lab.audit.chmod(0o700)
    (lab.audit / "lock").touch()
    if not (lab.audit / "ask").is_fifo():
        os.mkfifo(lab.audit / "ask", 0o600)
    # -P: not what happens to lie in the current directory.
    program: list[str | Path] = [sys.executable, "-P", "-c", _PROGRAM, lab.directory, lab.cache]
    alive = detach(program, console=lab.audit / "console")
    while not _lives(lab):
        if not alive():
            said = (lab.audit / "console").read_text(errors="replace").strip()[-300:]
            report(f"who changes what is not captured here: {said}")
            return
        time.sleep(0.02)


def leave(lab: Lab) -> None:
    """End the keeper of ``lab``, and undo what it did to the kernel; also after it was killed."""
    if not lab.audit.is_dir():
        return
    process.kill(lab.audit / "keeper")
    while _lives(lab):
        time.sleep(0.02)
    grace.restore(_grace(lab))
    for session in _sessions(lab):
        _end(lab, session)
    shared = lab.cache / "audit"
    if shared.is_dir():
        with _alone(shared) as alone:
            if alone:
                auditd.stop(shared)


def keep(lab: Lab) -> None:
    """Answer the runners of ``lab`` for ever."""
    lock = os.open(lab.audit / "lock", os.O_RDWR)
    shared = lab.cache / "audit"
    with locked(shared, report=_silent, busy=""):
        users = os.open(shared / "users", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(users, fcntl.LOCK_SH)
        log = auditd.log(shared)
    # Sessions are numbered from the host's boot on: an old answer would be taken for a new one.
    for old in (lab.audit / "answers").iterdir():
        old.unlink()
    (lab.audit / "source").unlink(missing_ok=True)
    (lab.audit / "source").symlink_to(log.parent)
    write_file(lab.audit / "name", f"{log.name}\n")
    process.write(lab.audit / "keeper", os.getpid())
    # Open for writing too: then it has no end when a runner closes it.
    ask = os.open(lab.audit / "ask", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with Audit() as kernel:
        _Keeper(lab, kernel).answer(ask)


class _Keeper:
    """Sets rules at once, and deletes them while nobody asks."""

    def __init__(self, lab: Lab, kernel: Audit) -> None:
        self._lab = lab
        self._kernel = kernel
        self._over: list[str] = []
        self._rules: list[Rule] = []

    def answer(self, ask: int) -> None:
        swept = time.monotonic()
        while True:
            ready, _, _ = select.select([ask], [], [], self._patience())
            if ready:
                for line in os.read(ask, 4096).decode(errors="replace").splitlines():
                    self._try(self._answer, line)
            elif self._over:
                self._try(self._delete)
            # Also where questions keep coming: each system call of the whole host is held against each rule there is.
            if time.monotonic() - swept > _LOST:
                self._over += _sessions(self._lab) - _living_sessions() - set(self._over)
                swept = time.monotonic()

    def _patience(self) -> float | None:
        if self._over:
            return 0.0
        return _LOST if _sessions(self._lab) else None

    def _try(self, step: Callable[..., None], *arguments: str) -> None:
        """What fails is told on the console, and refused by silence: the other machines still need a keeper."""
        try:
            step(*arguments)
        except OSError:
            traceback.print_exc()
            # Those that are over are found again.
            self._over, self._rules = [], []

    def _answer(self, line: str) -> None:
        match = _QUESTION.fullmatch(line)
        if match is None:
            return
        verb, session = match[1], match[2]
        lost = self._kernel.status().lost
        if verb == "begin":
            # Where sessions come faster than the kernel deletes rules, they wait for it.
            while len(self._over) > _WAITING:
                self._delete()
            self._forget_answers()
            # First: what is killed in between can then be undone.
            (self._lab.audit / "sessions" / session).touch()
            # Silence is a refusal.
            if not rules.begin(self._kernel, int(session), int(match[3]), match[4].split()):
                return
        elif session not in self._over:
            self._over.append(session)
        write_file(self._lab.audit / "answers" / f"{session}.{verb}", f"{lost}\n")

    def _forget_answers(self) -> None:
        known = _sessions(self._lab)
        for old in (self._lab.audit / "answers").iterdir():
            # Whoever asked may not have read a newer one yet.
            if old.stem not in known and time.time() - old.stat().st_mtime > _READ_WITHIN:
                old.unlink()

    def _delete(self) -> None:
        """The rules of the session that has waited longest; one of them, where the kernel takes its time for each."""
        session = self._over[0]
        if not self._rules:
            self._rules = rules.of_those(self._kernel, lambda one: one == int(session))
        with grace.short(_grace(self._lab)) as quick:
            some = len(self._rules) if quick else 1
            self._kernel.delete(*self._rules[:some])
            del self._rules[:some]
        if not self._rules:
            rules.narrow(self._kernel)
            (self._lab.audit / "sessions" / session).unlink(missing_ok=True)
            self._over.remove(session)


def main() -> None:
    """What a keeper runs: the lab's directory and cache are its arguments."""
    prerequisites.check_root()
    keep(Lab.at(Path(sys.argv[1]), Path(sys.argv[2])))


def _grace(lab: Lab) -> Path:
    return lab.cache / "audit/grace"


def _sessions(lab: Lab) -> set[str]:
    return {path.name for path in (lab.audit / "sessions").glob("*")}


def _end(lab: Lab, session: str) -> None:
    """Delete the rules of a session whose keeper is gone."""
    with Audit() as kernel:
        rules.end(kernel, lambda one: one == int(session))
    (lab.audit / "sessions" / session).unlink(missing_ok=True)


def _living_sessions() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/sessionid"):
        with suppress(OSError):
            found.add(path.read_text())
    return found


@contextmanager
def _alone(shared: Path) -> Iterator[bool]:
    """Whether no keeper of any lab lives, and none starts meanwhile."""
    with locked(shared, report=_silent, busy=""):
        users = os.open(shared / "users", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        try:
            yield alone
        finally:
            os.close(users)


def _lives(lab: Lab) -> bool:
    try:
        fd = os.open(lab.audit / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _silent(_: str) -> None:
    """Waiting for this lock takes milliseconds and needs no word."""
