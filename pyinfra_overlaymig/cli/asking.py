"""Asks the runner of one machine, in the lab or over ssh, for commands that show what it answers."""

from __future__ import annotations

import re
import shlex
import subprocess

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.errors import InvalidStatus, OverlaymigError, from_runner_exit
from pyinfra_overlaymig.format.capture import Capture, parse
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.exits import meaning
from pyinfra_overlaymig.format.paths import PROGRAM

_LAB = re.compile(r"lab-[0-9]+")
_LAB_HINT = "look at: overlaymig lab status"
_OF_SSH = 255
_OF_SHELL = (126, 127)


def capture(host: str, id: str, *, sudo: bool = False) -> Capture:
    """The record of the migration or capture ``id`` on ``host``."""
    try:
        return parse(ask(host, "diff", "--raw", id, sudo=sudo).decode("utf-8", "surrogateescape"))
    except FormatError as error:
        raise InvalidStatus(f"{host}: {error}", hint=error.hint) from error


def ask(host: str, *words: str, sudo: bool = False) -> bytes:
    """What the runner of ``host`` answers; with ``sudo``, to root, where ssh logs in as somebody else."""
    in_lab = bool(_LAB.fullmatch(host))
    if in_lab:
        argv = labs.machine(labs.Lab.default(), host).enter(PROGRAM, *words)
    else:
        as_root = ["sudo", "-n", "--"] if sudo else []
        argv = ["ssh", "--", host, shlex.join([*as_root, PROGRAM, *words])]
    done = _output(argv)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or meaning(done.returncode)
        # The runner knows best what to do; who only failed to reach it does not.
        what, _, hint = said.partition("\n  hint: ")
        hint = hint or (_LAB_HINT if in_lab else _hint(host, done.returncode, said, sudo=sudo))
        raise from_runner_exit(done.returncode, f"{host}: {what.removeprefix('system-migrate: ')}", hint=hint)
    return done.stdout


def _output(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise OverlaymigError(
            f"{argv[0]} is not installed here", hint="install it (as root: apt-get install openssh-client)"
        ) from error


def _hint(host: str, code: int, said: str, *, sudo: bool) -> str:
    """What to do about a real host, by who it was that did not do it: ssh, sudo, the shell, or the runner."""
    if code == _OF_SSH:
        return f"log in by hand first, which says more: ssh {host}"
    if sudo and said.startswith("sudo:"):
        return f"nobody can type a password here: let sudo ask for none on {host}, or log in as root"
    if code in _OF_SHELL:
        if "denied" in said.lower() and not sudo:
            return "only root may look there: log in as root, or use --sudo"
        return f"is it prepared? pyinfra INVENTORY deploys/prepare.py prepares {host}"
    return "pyinfra INVENTORY fact pyinfra_overlaymig.facts.MachineStatus shows all that it says of itself"
