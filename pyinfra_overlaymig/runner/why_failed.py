"""Why a stage ended as it did: which part of it that was, the last command where audit knows it, and what to do.

What the runner met itself, before the script or after it, was told there; what a script says of itself is in the log.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from contextlib import contextmanager

from pyinfra_overlaymig.format.octal import escape_text
from pyinfra_overlaymig.format.paths import LIVE
from pyinfra_overlaymig.runner import files, rooted, spawn, stage_state
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.say import Leave, attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_overlaymig.runner.stage import Stage

_END, _ASKED = 4096, 400
"""Bytes of a log's end that are looked through; a question is the last thing there."""
_REFUSED = 3
_ABOVE = "the reason is above"
_BY_SIGNAL = 128
_NOBODY = "nobody answers a question: a script has no standard input"
_START = "system-migrate: /run/migration/install.sh: "
_CONFFILE = re.compile(
    rb"conffile prompt|conffile diff|\*\*\* \S+ \(Y/I/N/O/D/Z\)|configuration file '[^']*'[\s\S]*what would you like"
)
_QUESTION = re.compile(
    rb"[\[(](?:y(?:es)?/no?|no?/y(?:es)?)\b[^\])]*[\])]|EOFError|EOF when reading"
    rb"|end of file (?:on|from) (?:stdin|standard input)"
    rb"|(?:stdin|standard input)[^\n]* (?:not|no) a (?:tty|terminal)|inappropriate ioctl for device|no tty present"
    rb"|(?:\?|(?:password|passphrase|name|answer|choice)[^\n:]*:)[ \t]*(?:\[[^\]\n]*\])?[ \t]*\s*\Z",
    re.IGNORECASE,
)
_READS = re.compile(
    rb"^(?![^\n]*(?:\bwhile\b|\buntil\b|<|\|))[^#\n]*(?:^|[;&({ \t])read(?:[ \t]+-[a-z]+)*[ \t]+[A-Za-z_]", re.MULTILINE
)
_ACROSS = os.strerror(errno.EXDEV).encode()
_PATHS = re.compile(rb"(?<![\w.])/[^\s'\"`:,;()\[\]<>\xe2]+")
"""Quotes are \xe2 as well, where they are typographic."""

_ROOM = "is there room on /data? else see dmesg"
_ANOTHER_KIND = dict.fromkeys(
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
    "it is of another kind on this machine: bring it elsewhere, or let the script put it there",
)


@contextmanager
def step(what: str) -> Iterator[None]:
    """A part of a stage that is the runner's; of what the system refuses there, ``what`` says where that was."""
    try:
        yield
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise Leave(1, f"{what}: {error.strerror or error}{at}", _ANOTHER_KIND.get(error.errno or 0, _ROOM)) from error


def leave(stage: Stage, code: int) -> Leave:
    """Why a stage ended with ``code``."""
    ended = files.first_line(f"{stage.directory}/script")
    if not ended:
        return Leave(code) if code == _REFUSED else Leave(code, "the install script did not run", _ABOVE)
    if ended == "0":
        return Leave(code, "the install script succeeded, but the stage could not be read after it", _ABOVE)
    said = files.read_end(f"{stage.directory}/log", _END).encode("utf-8", "surrogateescape")
    if int(ended) in (spawn.NOT_FOUND, spawn.NOT_RUN) and _START.encode() in said:
        return Leave(
            code, "the install script cannot be started", f"{_ABOVE}: can its interpreter run on this machine?"
        )
    last = last_command(stage)
    words = f"the install script failed with status {ended}{_signal(int(ended))}{after(last)}"
    return Leave(code, words, _hint(stage, int(ended), said, last))


def late(stage: Stage, seconds: int) -> Leave:
    """It took too long."""
    last = last_command(stage)
    hint = f"a larger `timeout` in migration.yaml gives it more; {_NOBODY}" if last else ""
    return Leave(9, f"the install script did not end within its limit of {seconds} s{after(last)}", hint)


def last_command(stage: Stage) -> str:
    """The last one that the script started, as audit saw it; empty where nobody watched."""
    found: list[str] = []
    attempt(lambda: found.append(audit.last_command(stage.directory)))
    return found[0] if found else ""


def after(last: str) -> str:
    return f"\n  the last command that it started: {last}" if last else ""


def _signal(status: int) -> str:
    try:
        return f" (as of signal {signal.Signals(status - _BY_SIGNAL).name})" if status > _BY_SIGNAL else ""
    except ValueError:
        return ""


def _hint(stage: Stage, status: int, said: bytes, last: str) -> str:
    """What may have been in its way."""
    script = files.read(f"{stage.directory}/install.sh").encode("utf-8", "surrogateescape")
    if _ACROSS in said:
        return _across(said, last)
    return stage_state.hint(stage) or asked(said, script, status)


def asked(said: bytes, script: bytes, status: int) -> str:
    """What to do where it seems to have asked something: ``said`` is the end of its output."""
    if _CONFFILE.search(said):
        return (
            "dpkg asked what becomes of a configuration file that was changed, and a script has no standard input: "
            "`export DPKG_FORCE=confold` in it keeps the file that is there, confnew takes the package's"
        )
    if _QUESTION.search(said[-_ASKED:].rstrip(b"\n")) or (status == 1 and _READS.search(script)):
        return f"{_NOBODY}; say the answer beforehand (-y, --yes, debconf-set-selections, a file)"
    return ""


def _across(said: bytes, last: str) -> str:
    """Which directory it was that could not be renamed: in what was said of it, else in the last command."""
    at = said.find(_ACROSS)
    line = said[said.rfind(b"\n", 0, at) + 1 :].partition(b"\n")[0]
    named = [os.fsdecode(path) for path in _PATHS.findall(line) + _PATHS.findall(os.fsencode(last))]
    places = (path.rstrip("/") for path in named)
    below = next((path for path in places if os.path.isdir(rooted.resolve(LIVE, path))), "")
    which = f"the directory {escape_text(below)}" if below else "a directory"
    return (
        f"{which} is of the stack below: such a one cannot be renamed in an overlay (rename(2) answers EXDEV), "
        "its files stay in their layer: `mv` copies by itself, else: cp -a OLD NEW && rm -r OLD"
    )


def check_interpreter(script: str, root: str, path: str) -> None:
    """Leaves where what runs the script is not in ``root``; ``path`` is where it finds programs."""
    with open(script, "rb") as file:
        first = file.readline(_END)
    if not first.startswith(b"#!"):
        if first.startswith(b"\x7fELF"):
            return
        raise Leave(1, "install.sh has no interpreter: its first line is no #!", "begin it with: #!/bin/sh")
    words = os.fsdecode(first[2:].rstrip(b"\n")).strip(" \t").split(" ")
    wanted = words[0]
    found = _runs(root, wanted)
    if found and os.path.basename(wanted) == "env" and (program := _of_env(words[1:])):
        wanted, found = program, any(_runs(root, f"{one}/{program}") for one in path.split(":"))
    if not found:
        dos = wanted.endswith("\r")
        hint = "its lines end as in DOS: take the \\r out" if dos else "let it depend on a migration that brings it"
        raise Leave(1, f"install.sh cannot be run: its interpreter {escape_text(wanted)} is not here", hint)


def _of_env(words: list[str]) -> str:
    """The program that env(1) is to look for; empty where that is a path of its own, or hard to tell."""
    left = [word for word in words if word and "=" not in word]
    while left and left[0] in ("-S", "-i", "--"):
        left = left[1:]
    program = left[0].removeprefix("-S") if left else ""
    return "" if program.startswith("-") or "/" in program else program


def _runs(root: str, path: str) -> bool:
    place = rooted.resolve(root, path)
    return os.path.isfile(place) and os.access(place, os.X_OK)
