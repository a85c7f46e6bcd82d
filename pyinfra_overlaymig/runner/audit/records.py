"""Reads what audit recorded of a session: which programs ran, who started them, and what they did to which names.

Text is Latin-1 throughout this room: each byte is one character, so that it sorts and is written as the kernel had it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pyinfra_overlaymig.runner.audit.fields import base, trimmed, value
from pyinfra_overlaymig.runner.audit.processes import Processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pyinfra_overlaymig.runner.audit.processes import Process

_ARGUMENT = re.compile(r"a[0-9]+(?:\[[0-9]+\])?=")
_ENOUGH = 400
"""Characters of a command line that are kept."""
_MARK = 'key="migration_tracking-'
_HANDLE = 3
"""A first argument this short is an open directory, not AT_FDCWD and no pointer."""


class Event(NamedTuple):
    """One name that a call was about.

    ``what``: `m` metadata, `w` all else. ``kind``: C made, L linked, D gone, N opened or described. ``above``: inode
    of its directory, where that is known. ``path`` as the process gave it, empty where it was relative to an open
    directory; ``directory``: `d` for one; ``relative``: `r` where it was relative to anything.
    """

    serial: int
    what: str
    by: int
    kind: str
    device: str
    inode: str
    above: str
    name: str
    path: str
    directory: str
    relative: str


class Reader:
    """Takes records, line by line; the records of one event may be mixed with others'.

    ``places``: the devices that are watched. ``runner``: what the process is to be called that begins the session,
    where it is process 1 of a stage. ``seen`` counts the session's events.
    """

    def __init__(self, session: str, places: Collection[str], runner: str = "") -> None:
        self.processes = Processes(runner)
        self.events: list[Event] = []
        self.seen = 0
        self._session = f"ses={session}"
        self._begins = (f" ses={session} ", f"old-ses={session} ")
        self._places = places
        self._stage = bool(runner)
        self._before = ""
        self._ours: set[str] = set()
        self._open: dict[str, _Open] = {}

    def take(self, lines: Iterable[str]) -> list[str]:
        """Reads these; those of the session."""
        kept: list[str] = []
        keep = kept.append
        known, waiting = self._ours, self._open
        for line in lines:
            if line.startswith("node="):
                line = line.partition(" ")[2]  # noqa: PLW2901 - as it is without the name of its host
            kind = line[5:9]
            start = line.find(":")
            serial = line[start + 1 : line.find(")", start)]
            try:
                if kind == "SYSC":
                    ours = self._call(serial, line)
                elif kind == "LOGI":
                    ours = self._login(line)
                else:
                    ours = serial in known
                    # An event is complete when all its PATHs have come.
                    if ours and serial in waiting:
                        self._more(serial, kind, line)
            except (IndexError, ValueError):
                # Cut off where the disk was full.
                continue
            if ours:
                keep(line)
        return kept

    def _login(self, line: str) -> bool:
        begins, other = self._begins
        if begins in line:
            pid = line.split(" ", 3)[2][4:]
            if self._stage and not self.processes.reaper:
                self.processes.reaper = pid
            elif not self._stage:
                self._before = pid
            return True
        return other in line

    def _call(self, serial: str, line: str) -> bool:
        words = line.split(" ")
        # Before it, there is the personality of a program that has another one; or nothing, in a call that never ended.
        at = 10 if words[4].startswith("success=") else 11 if words[5].startswith("success=") else 8
        if words[at + 13] != self._session:
            return False
        self._ours.add(serial)
        self.seen += 1
        items = int(words[at][6:])
        ppid, pid, program = words[at + 1][5:], words[at + 2][4:], value(words[at + 15])
        mark = line.find(_MARK)
        kind = line[mark + len(_MARK)] if mark >= 0 else ""
        if not items and not kind and pid == self._before:
            # It entered the session, to become the command.
            return True
        event = _Open(items, pid, ppid, program)
        if not items or kind in ("c", "m"):
            # Else an EXECVE follows; or it may, where a rule of others came first.
            event.by = self.processes.find(pid, ppid, program)
            event.what = "m" if kind == "m" else "w"
            if not items:
                return True
        elif kind == "p":
            # A program that is started was only read: its PATHs tell nothing.
            event.left = 0
        event.by_handle = len(words[at - 4]) - 3 <= _HANDLE
        self._open[serial] = event
        return True

    def _more(self, serial: str, kind: str, line: str) -> None:
        event = self._open[serial]
        if kind == "PATH" and line[9] == " ":
            if event.left:
                self._path(serial, event, line.split(" ", 12))
        elif kind == "EXEC" and event.by is None:
            self._executed(serial, event, line)
        elif kind == "CWD " and event.left:
            event.where = value(line.split(" ", 3)[2])

    def _executed(self, serial: str, event: _Open, line: str) -> None:
        words = ""
        for word in line.split(" ")[3:]:
            if len(words) >= _ENOUGH:
                break
            if _ARGUMENT.match(word):
                words = f"{words} {value(word)}" if words else value(word)
        self.processes.execute(event.pid, event.ppid, event.program, words)
        # A long list of arguments is more than one record.
        del self._open[serial]

    def _path(self, serial: str, event: _Open, words: list[str]) -> None:
        if event.by is None:
            event.by = self.processes.find(event.pid, event.ppid, event.program)
        device = words[5][4:] if len(words) > 5 else ""  # noqa: PLR2004 - one whose inode the kernel does not know is short
        watched = device in self._places
        # Those of an upper directory have no name.
        if watched or words[3] != "name=(null)":
            self._item(event, device, words, watched=watched)
        event.left -= 1
        if not event.left:
            self._finish(int(serial), event)
            del self._open[serial]

    @staticmethod
    def _item(event: _Open, device: str, words: list[str], *, watched: bool) -> None:
        # After the device's number, or the label that a security module gives to the file.
        kind = next((word[9:] for word in words[10:12] if word.startswith("nametype=")), "")
        text = value(words[3])
        if kind == "PARENT":
            if watched and text:
                event.above.append((words[4][6:], trimmed(text), device))
        elif watched if kind == "NORMAL" else kind in ("CREATE", "DELETE") and text:
            mode = words[6]
            directory = "d" if len(mode) == 11 and mode.startswith("mode=04") else ""  # noqa: PLR2004 - of six digits
            event.items.append((kind[0], device, words[4][6:], directory, text))

    def _finish(self, serial: int, event: _Open) -> None:
        items, parents, places = event.items, event.above, self._places
        # Only a link names one thing that is there and one that it makes; it changes nothing in the first.
        kinds = {item[0] for item in items} if len(items) > 1 else ()
        link = "N" in kinds and "C" in kinds
        for kind, device, inode, directory, text in items:
            if (link and kind == "N") or (not parents and device not in places):
                continue
            above = ""
            if parents:
                above, _, device = _mother(kind, text, parents)  # noqa: PLW2901 - see there
            relative = "" if text.startswith("/") else "r"
            path = text
            if relative:
                # Without a CWD the inode of the directory has to do.
                path = f"{event.where.removesuffix('/')}/{text}" if text and event.where and not event.by_handle else ""
            by = event.by.number if event.by else 0
            name = base(text)
            done = "L" if link else kind
            found = Event(serial, event.what, by, done, device, inode, above, name, path, directory, relative)
            self.events.append(found)


class _Open:
    """An event of which not all records have come."""

    __slots__ = ("above", "by", "by_handle", "items", "left", "pid", "ppid", "program", "what", "where")

    def __init__(self, left: int, pid: str, ppid: str, program: str) -> None:
        self.left = left
        self.pid = pid
        self.ppid = ppid
        self.program = program
        self.by: Process | None = None
        self.what = "w"
        self.by_handle = False
        self.where = ""
        self.items: list[tuple[str, str, str, str, str]] = []
        self.above: list[tuple[str, str, str]] = []


def _mother(kind: str, text: str, parents: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    """The directory of a name: inode, name and device.

    Two directories belong to a rename: the one that the name begins with. Where it tells nothing, the new one comes
    first, as the kernel reads the arguments from the last one on. Overlayfs repeats a change in its upper directory,
    and the kernel may note that one for the name: the device is the directory's.
    """
    if len(parents) > 1:
        last = base(text)
        for parent in parents:
            if f"{parent[1]}/{last}" == text:
                return parent
    return parents[-1 if kind == "D" else 0]
