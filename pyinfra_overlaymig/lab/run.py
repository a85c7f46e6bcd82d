"""The lab's only door to subprocesses; it must never be given a shell string."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError

_DEFAULT = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT, signal.SIGTERM, signal.SIGXFSZ)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str = "",
    hint: str = "the message above names the cause; running the same command again is safe",
    keep_open: Sequence[int] = (),
) -> str:
    """Run ``argv`` to its end and return its standard output.

    ``keep_open`` are descriptors the program inherits. A failure is an `OverlaymigError` that
    quotes the end of the program's standard error.
    """
    done = _complete(argv, stdin=stdin, keep_open=keep_open)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        command = " ".join(str(word) for word in argv)
        raise OverlaymigError(f"`{command}` failed with {done.returncode}:\n{said}", hint=hint)
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Whether ``argv`` ends with exit 0; what it prints is dropped."""
    return _complete(argv).returncode == 0


def detach(argv: Sequence[str | Path], *, console: Path) -> Callable[[], bool]:
    """Start ``argv`` in a session of its own that outlives this process and logs to ``console``.

    The returned function tells whether it still runs.
    """
    words = [str(word) for word in argv]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # Not a Popen: that one complains when its process outlives it.
    pid = os.posix_spawn(
        words[0],
        words,
        {},
        setsid=True,
        # A shell that begins with a signal ignored cannot trap it: services would not hear one, as under nohup.
        setsigdef=_DEFAULT,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(console), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    return lambda: _runs(pid)


def _runs(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def _complete(
    argv: Sequence[str | Path], *, stdin: str = "", keep_open: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(word) for word in argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            pass_fds=tuple(keep_open),
            umask=0o022,
        )
    except OSError as error:
        raise OverlaymigError(
            f"cannot start `{argv[0]}`: {error.strerror}",
            hint="`overlaymig lab up` names the programs that are missing",
        ) from error
