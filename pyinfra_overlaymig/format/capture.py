"""What a migration changed and who did it, from the machine's records; it must not talk to machines."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.paths import OF_PACKAGES, is_below

WHAT: Final = {"A": "added", "C": "changed", "M": "metadata", "D": "deleted"}
STATE_PREFIXES: Final = (
    "/srv",
    "/var/games",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/spool",
    "/var/www",
)
"""Where programs keep what they write: in a layer it would be lost with the next generation."""
_OF_THE_SYSTEM: Final = (
    *OF_PACKAGES,
    *("/var/lib/alternatives", "/var/lib/dbus", "/var/lib/initramfs-tools", "/var/lib/misc", "/var/lib/pam"),
    *("/var/lib/polkit-1", "/var/lib/python", "/var/lib/shells.state", "/var/lib/systemd", "/var/lib/ucf"),
    *("/var/lib/update-rc.d", "/var/lib/usbutils", "/var/lib/vim", "/var/lib/xml-core", "/var/lib/sgml-base"),
    *(
        "/var/log/apt",
        "/var/log/dpkg.log",
        "/var/log/alternatives.log",
        "/var/log/fontconfig.log",
        "/var/log/bootstrap.log",
    ),
)
"""Written by package scripts about packages: they go with the layer."""
_FIELDS = 9


@dataclass(frozen=True)
class Process:
    """A program that ran. ``parent``: the number of the process that started it, 0 for the first of all."""

    number: int
    parent: int
    pid: int
    program: str
    arguments: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "parent": self.parent,
            "pid": self.pid,
            "program": self.program,
            "arguments": list(self.arguments),
        }


@dataclass(frozen=True)
class Change:
    """A path that was changed, by process ``by`` (None where that is unexplained). ``size`` in bytes, of files."""

    path: str
    what: str
    kind: str
    owner: str
    size: int
    package: str | None = None
    by: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "what": self.what,
            "kind": self.kind,
            "owner": self.owner,
            "size": self.size,
            "package": self.package,
            "by": self.by,
        }


@dataclass(frozen=True)
class Also:
    """A path that audit saw written and that no layer holds: transient, unchanged, left-out or state."""

    path: str
    what: str
    by: int

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "what": self.what, "by": self.by}


@dataclass(frozen=True)
class Puzzle:
    """A path that only one source knows. ``source``: change (the upper directory has it) or record (audit has it)."""

    path: str
    source: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "source": self.source, "reason": self.reason}


@dataclass(frozen=True)
class Capture:
    """The record of a migration, or of a command. ``audit`` is `on`, or why nobody was watched.

    ``lost``: records that the kernel could not deliver, None where that is not known. Paths are absolute, with blanks
    and the like as octal escapes.
    """

    audit: str
    events: int | None
    lost: int | None
    state: tuple[str, ...]
    changes: tuple[Change, ...]
    processes: dict[int, Process] = field(default_factory=dict)
    also: tuple[Also, ...] = ()
    unexplained: tuple[Puzzle, ...] = ()

    def chain(self, number: int | None) -> Iterator[Process]:
        """A process, the one that started it, and so on."""
        while number:
            process = self.processes.get(number)
            if process is None:
                return
            yield process
            number = process.parent

    def proposed_state(self) -> tuple[str, ...]:
        """Directories that a program will go on writing to, by all signs, and that are no declared state.

        What packages bring stays with them; a directory of an account of its own, and files that no package knows, are
        something's state.
        """
        found = {
            top
            for change in self.changes
            if change.what in ("added", "changed") and (top := _top(change.path)) and self._is_kept(change, top)
        }
        return tuple(sorted(found))

    def _is_kept(self, change: Change, top: str) -> bool:
        if any(is_below(top, other) for other in (*_OF_THE_SYSTEM, *self.state)):
            return False
        if change.path == top and change.kind != "d":
            # A file right below a prefix cannot be a state path.
            return False
        return (change.kind == "d" and change.owner not in ("0", "-")) or (
            change.kind == "f" and change.package is None
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, with the paths that are proposed as state."""
        return {
            "audit": self.audit,
            "events": self.events,
            "lost": self.lost,
            "state": list(self.state),
            "proposed_state": list(self.proposed_state()),
            "changes": [one.to_json() for one in self.changes],
            "processes": [one.to_json() for one in self.processes.values()],
            "also": [one.to_json() for one in self.also],
            "unexplained": [one.to_json() for one in self.unexplained],
        }


def _top(path: str) -> str | None:
    """The directory right below the state prefix that ``path`` is under."""
    for prefix in STATE_PREFIXES:
        if path.startswith(f"{prefix}/"):
            return posixpath.join(prefix, path.removeprefix(f"{prefix}/").partition("/")[0])
    return None


def parse(text: str) -> Capture:
    """What `system-migrate diff --raw` printed; FormatError if it is not that, whole."""
    # A name may hold what splitlines() takes for the end of a line.
    lines = text.split("\n")
    if lines[-2:] != ["end", ""]:
        raise _unreadable("it has no end")
    record: dict[str, list[str]] = {}
    changed: list[list[str]] = []
    processes: dict[int, Process] = {}
    who: dict[str, tuple[int, str | None]] = {}
    also, unexplained = [], []
    for line in lines[:-2]:
        try:
            kind, *words = line.split(" ")
            if kind == "record":
                record.setdefault(words[0], []).append(" ".join(words[1:]))
            elif kind == "change" and len(words) >= _FIELDS:
                changed.append(words)
            elif kind == "process":
                number, parent, pid = map(int, words[:3])
                processes[number] = Process(number, parent, pid, words[3], tuple(words[4:]))
            elif kind == "path":
                who[words[2]] = int(words[0]), None if words[1] == "-" else words[1]
            elif kind == "also":
                also.append(Also(f"/{words[2]}", words[0], int(words[1])))
            elif kind == "unexplained":
                unexplained.append(Puzzle(f"/{words[2]}", words[0], words[1]))
            else:
                raise _unreadable(f"this is no line of one: {line!r}")
        except (ValueError, IndexError) as error:
            raise _unreadable(f"this is no line of one: {line!r}") from error
    return Capture(
        audit=" ".join(record.get("audit", [""])),
        events=_number(record, "events"),
        lost=_number(record, "lost"),
        state=tuple(record.get("state", ())),
        changes=tuple(_change(words, who) for words in changed),
        processes=processes,
        also=tuple(also),
        unexplained=tuple(unexplained),
    )


def _change(words: list[str], who: dict[str, tuple[int, str | None]]) -> Change:
    by, package = who.get(words[8], (None, None))
    return Change(
        f"/{words[8]}",
        WHAT.get(words[0], words[0]),
        words[1],
        words[3],
        int(words[5]) if words[5].isdigit() else 0,
        package,
        by,
    )


def _number(record: dict[str, list[str]], key: str) -> int | None:
    found = record.get(key, [""])[0]
    return int(found) if found.isdigit() else None


def _unreadable(why: str) -> FormatError:
    return FormatError(
        f"the capture cannot be read: {why}",
        hint="let machine_prepared install the runner that belongs to this overlaymig",
    )
