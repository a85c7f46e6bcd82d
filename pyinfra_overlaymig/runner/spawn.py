"""Children: how they begin, how long they may take, and how they end; nothing else forks or executes."""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import NamedTuple

from pyinfra_overlaymig.runner import linux
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import Leave, explain, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyinfra_overlaymig.runner.output import Output

PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
"""The distribution's own programs first: what a layer has in /usr/local may be anything."""
LATE = 124
"""What a program that ran out of time is said to have ended with, as of timeout(1)."""
NOT_FOUND, NOT_RUN = 127, 126
_MOST_DESCRIPTORS = 4096
_DEFAULT = (
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)


class Child(NamedTuple):
    """A process of ours; ``pidfd`` becomes readable when it ends."""

    pid: int
    pidfd: int


def fork(work: Callable[[], int | None], *, orphan: bool = False) -> Child:
    """A child that does ``work`` and ends with what it returns; it dies with this process unless it is an ``orphan``.

    It holds the lock as long as it lives, if this process does: it may be writing.
    """
    told, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _live(work, tells, orphan=orphan)
    os.close(tells)
    # From here on it dies with this process; before, nobody would have told it.
    os.read(told, 1)
    os.close(told)
    return Child(pid, os.pidfd_open(pid))


def _live(work: Callable[[], int | None], tells: int, *, orphan: bool) -> None:
    code = 111
    try:
        if not orphan:
            linux.set_parent_death_signal(signal.SIGKILL)
        os.write(tells, b".")
        os.close(tells)
        code = work() or 0
    except Leave as leaving:
        leaving.tell()
        code = leaving.code
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 111
    except BaseException as error:  # noqa: BLE001 - a child never returns into its parent's code
        explain(error)
    finally:
        os._exit(code)


def wait(child: Child, deadline: Deadline | None = None) -> int | None:
    """How the child ended, as `status` tells it; None when it has not by then."""
    if deadline is not None:
        poll = select.poll()
        poll.register(child.pidfd, select.POLLIN)
        if not poll.poll(deadline.milliseconds()):
            return None
    _, found = os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    return status(found)


def status(found: int) -> int:
    """The exit code, or 128 and the signal, of what wait(2) answered."""
    code = os.waitstatus_to_exitcode(found)
    return code if code >= 0 else 128 - code


def finish(child: Child, deadline: Deadline | None = None) -> int:
    """How the child ended; `LATE` when it has not by then. It is killed then, and where this process is interrupted."""
    try:
        code = wait(child, deadline)
    except BaseException:
        _kill(child)
        raise
    if code is None:
        _kill(child)
        return LATE
    return code


def _kill(child: Child) -> None:
    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    wait(child)


def become(argv: list[str], env: Mapping[str, str] | None = None, root: str | None = None) -> None:
    """Executes ``argv`` in place of this process, in ``root``, with signals as a program expects them."""
    if root is not None:
        os.chroot(root)
    os.chdir("/")
    default_signals()
    # What the caller of the runner left open is nothing to a script.
    os.closerange(3, _MOST_DESCRIPTORS)
    environment = dict(os.environ if env is None else env)
    # Looked up in the new root.
    os.environ["PATH"] = environment.get("PATH", PATH)
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        sys.stderr = None
        warn(f"{argv[0]}: {error.strerror}")
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN)


def default_signals() -> None:
    """As a program expects them: what Python, or the runner, ignores would be ignored by it as well."""
    for number in _DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def run(
    argv: list[str],
    *,
    env: Mapping[str, str] | None = None,
    root: str | None = None,
    seconds: float | None = None,
    grace: float = 5.0,
    quiet: bool = False,
    stdin: bytes = b"",
    said: Output | None = None,
) -> int:
    """Runs a program to its end, in a session of its own; its status, `LATE` where it took longer than ``seconds``.

    At its limit it gets TERM with all of its group, KILL after ``grace``. ``quiet``: what it says is dropped; ``said``:
    goes through that.
    """

    def program() -> None:
        os.setsid()
        _streams(stdin, quiet=quiet)
        if said:
            said.connect()
        become(argv, env, root)

    child, deadline = fork(program), Deadline(seconds)
    if said:
        said.begun()
        said.take_until(child.pidfd, deadline)
    code = wait(child, deadline)
    if code is None:
        _end(child, grace)
        code = LATE
    if said:
        said.end()
    return code


def _streams(stdin: bytes, *, quiet: bool) -> None:
    nothing = os.open("/dev/null", os.O_RDWR)
    if stdin:
        source = os.memfd_create("stdin")
        os.write(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        os.dup2(source, 0)
    else:
        os.dup2(nothing, 0)
    if quiet:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)


def _end(child: Child, grace: float) -> None:
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            # Its program has not begun.
            os.kill(child.pid, number)
        if wait(child, Deadline(patience)) is not None:
            # What it started may go on for longer than it.
            _end_group(child.pid)
            return


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def lives(pid: int) -> bool:
    """Whether there is a process ``pid``, a zombie too."""
    return pid > 0 and os.path.exists(f"/proc/{pid}")
