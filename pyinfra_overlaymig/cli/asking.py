"""Asks the runner of one machine, in the lab or over ssh, for commands that show what it answers."""

from __future__ import annotations

import re
import shlex
import subprocess

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.errors import InvalidStatus, from_runner_exit
from pyinfra_overlaymig.format.capture import Capture, parse
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.exits import meaning
from pyinfra_overlaymig.format.paths import PROGRAM

_LAB = re.compile(r"lab-[0-9]+")


def capture(host: str, id: str) -> Capture:
    """The record of the migration or capture ``id`` on ``host``."""
    try:
        return parse(ask(host, "diff", "--raw", id).decode("utf-8", "surrogateescape"))
    except FormatError as error:
        raise InvalidStatus(f"{host}: {error}", hint=error.hint) from error


def ask(host: str, *words: str) -> bytes:
    """What the runner of ``host`` answers."""
    if _LAB.fullmatch(host):
        argv = labs.machine(labs.Lab.default(), host).enter(PROGRAM, *words)
    else:
        argv = ["ssh", "--", host, shlex.join([PROGRAM, *words])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or meaning(done.returncode)
        raise from_runner_exit(done.returncode, f"{host}: {said}", hint="look at: overlaymig lab status")
    return done.stdout
