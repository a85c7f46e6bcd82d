"""The auditd that our sessions need: whether there can be one, and one of our own for as long as they last."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from contextlib import contextmanager, suppress

from pyinfra_overlaymig.format.paths import RUN, SYSTEM
from pyinfra_overlaymig.runner import files
from pyinfra_overlaymig.runner.audit import rules, shared
from pyinfra_overlaymig.runner.audit.netlink import Audit
from pyinfra_overlaymig.runner.clock import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = f"{SYSTEM}/audit"
_RUN = f"{RUN}/audit"
BACKLOG = 16384
"""64, the kernel's own choice, is for a machine that nobody watches."""
_STARTS, _ENDS = 3.0, 20.0
# The first ones of every kernel; audit obeys only them.
_FIRST = {"pid": "pid:[4026531836]", "user": "user:[4026531837]"}
_CONFIGURATION = """\
log_file = {log}
plugin_dir = {plugins}
{rotation}
local_events = yes
write_logs = yes
log_group = root
log_format = RAW
flush = NONE
priority_boost = 0
name_format = NONE
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = SUSPEND
disk_error_action = SUSPEND
use_libwrap = no
q_depth = 2000
overflow_action = IGNORE
"""


_NEVER_ROTATED = "max_log_file = 1000\nmax_log_file_action = IGNORE"


def configuration(log: str, plugins: str, rotation: str = _NEVER_ROTATED) -> str:
    """auditd.conf of one that runs for our sessions alone: on a machine or, for all of a lab, on its host."""
    return _CONFIGURATION.format(log=log, plugins=plugins, rotation=rotation)


def state() -> str:
    """`on` where a session can be watched, else why not."""
    if not os.path.exists("/proc/self/loginuid"):
        return "kernel-lacks"
    if shared.there():
        return "on" if shared.alive() else "namespace"
    if any(os.readlink(f"/proc/self/ns/{kind}") != name for kind, name in _FIRST.items()):
        return "namespace"
    return _own_state() if _program() else "no-auditd"


def _own_state() -> str:
    try:
        with Audit() as audit:
            status = audit.status()
    except OSError:
        return "kernel-lacks"
    if status.enabled == 2:  # noqa: PLR2004 - AUDIT_LOCKED
        return "locked"
    return "on" if holder(status.pid) in ("", "auditd") else "busy"


def _program() -> str:
    places = os.environ.get("PATH", "").split(":")
    return next((path for place in places if os.access(path := f"{place}/auditd", os.X_OK)), "")


def holder(pid: int) -> str:
    """What the process is that holds the kernel's audit, empty if there is none: the kernel may name a dead one."""
    try:
        if not pid or not os.readlink(f"/proc/{pid}/exe"):
            return ""
    except OSError:
        return ""
    return files.first_line(f"/proc/{pid}/comm")


def log(pid: int) -> str:
    """The file that a running auditd writes, as it can be opened from here; empty where it writes none."""
    for name in sorted(files.names(f"/proc/{pid}/fd"), key=int):
        path = f"/proc/{pid}/fd/{name}"
        with suppress(FileNotFoundError):
            target = os.readlink(path)
            if os.path.isfile(path) and (target.endswith((".log", "/log"))):
                return f"/proc/{pid}/root{target}"
    return ""


@contextmanager
def alone() -> Iterator[int]:
    """No other runner starts or ends auditd meanwhile, or opens a session: until nobody has the descriptor open."""
    files.make_dirs(_RUN)
    lock = os.open(f"{_RUN}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def use() -> int:
    """A descriptor that, as long as it is open, keeps the daemon from being ended."""
    descriptor = os.open(f"{_RUN}/open", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _unused() -> bool:
    descriptor = os.open(f"{_RUN}/open", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def start(audit: Audit) -> None:
    """Runs one for our sessions, with a log of its own that is never rotated; `end` ends it.

    It outlives whoever starts it, as others may have come to need it.
    """
    files.make_dirs(f"{HERE}/plugins")
    status = audit.status()
    # One that is there is of an auditd that died while it was needed.
    if not os.path.exists(f"{_RUN}/before"):
        files.write_file(f"{_RUN}/before", f"{status.enabled} {status.backlog_limit}\n")
    files.write_plain(f"{HERE}/auditd.conf", configuration(f"{HERE}/auditd.log", f"{HERE}/plugins"))
    pid = _launched()
    deadline = Deadline(_STARTS)
    # The kernel tells nobody that it has a new reader.
    while audit.status().pid != pid and os.waitpid(pid, os.WNOHANG) == (0, 0) and not deadline.over():
        select.select([], [], [], 0.002)
    audit.limit_backlog(BACKLOG)
    # Only where no rule of anybody else is there: it holds for all rules.
    if not audit.rules():
        files.mark(f"{_RUN}/terse")
        rules.terse(audit)


def _launched() -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        # Known before it runs: whoever starts it may be killed.
        files.write_plain(f"{_RUN}/daemon", f"{os.getpid()}\n")
        nothing = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        os.execv(_program(), ["auditd", "-n", "-c", HERE])
    finally:
        os._exit(1)


def end() -> None:
    """Ends the auditd that `start` ran, unless a session of ours is open, and gives the kernel back what it had.

    Also after it was killed, or the machine; can be done again.
    """
    if not os.path.isdir(HERE):
        return
    with alone():
        # Nothing is known after a reboot, and nothing is to be done. One that does not end is the next verb's.
        if not _unused() or not _ended(int(files.first_line(f"{_RUN}/daemon") or 0)):
            return
        with suppress(OSError), Audit() as audit:
            _give_back(audit)
        files.drop(*(f"{_RUN}/{name}" for name in ("daemon", "terse", "before", "users")), HERE)


def _give_back(audit: Audit) -> None:
    if os.path.exists(f"{_RUN}/terse"):
        rules.verbose(audit)
    before = files.first_line(f"{_RUN}/before").split(" ")
    # One that others have started since has its own.
    if len(before) == 2 and not holder(audit.status().pid):  # noqa: PLR2004 - it was written whole
        audit.enable(int(before[0]))
        audit.limit_backlog(int(before[1]))


def _ended(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        return True
    if descriptor < 0:
        return True
    try:
        # The number may be another process's by now.
        if HERE not in files.read(f"/proc/{pid}/cmdline"):
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        return bool(select.select([descriptor], [], [], _ENDS)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
