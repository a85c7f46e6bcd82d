"""Joins what a session changed with the processes that did it: who.list of FORMAT.md, from what audit recorded."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format.paths import NOWHERE
from pyinfra_overlaymig.format.who import Also, Path, Puzzle, Who
from pyinfra_overlaymig.format.who import Process as Named
from pyinfra_overlaymig.runner.audit import packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyinfra_overlaymig.runner.audit.processes import Process
    from pyinfra_overlaymig.runner.audit.records import Event

_OF_THE_RUNNER = "usr/sbin/policy-rc.d"
_OUTSIDE = "data/system/"


class Done(NamedTuple):
    """An event whose path is as it is called in the end. ``key``: device, inode and `d` or `f`."""

    serial: int
    what: str
    by: int
    kind: str
    key: str
    path: str
    directory: str


class Change(NamedTuple):
    """What is needed of a line of changes.list. ``path`` is escaped; ``linked``: it is another name of a file."""

    op: str
    path: str
    linked: bool


def parse(lines: Iterable[str]) -> list[Change]:
    """Those of changes.list."""
    found = []
    for line in lines:
        words = line.split(" ")
        found.append(Change(words[0], words[8], words[9:10] == ["=="]))
    return found


def resolve(events: Iterable[Event], names: Mapping[str, str], root: str, *, merged: bool) -> list[Done]:
    """The events with each path as it is called in the end.

    ``names``: paths by key. The inode of its directory tells where a name lies, whatever the process called that
    directory; what it called it counts only where the directory is gone, or was never in an upper.
    """
    found = []
    learned: dict[str, str] = {}
    for event in events:
        key = f"{event.device} {event.inode} {event.directory or 'f'}"
        mother = f"{event.device} {event.above} d" if event.above else ""
        if event.kind == "N" and key in names:
            path = names[key]
        elif mother and mother in names:
            above = names[mother]
            path = f"{above}/{event.name}" if above else event.name
        elif mother and mother in learned:
            path = f"{learned[mother]}/{event.name}"
        else:
            path = _canonical(event.path, root, merged=merged) if event.path else ""
        if event.kind == "C" and event.directory:
            learned[key] = path
        if path:
            found.append(Done(event.serial, event.what, event.by, event.kind, key, path, event.directory))
    return found


def _canonical(path: str, root: str, *, merged: bool) -> str:
    if path.startswith(root):
        path = path[len(root) - 1 :]
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return packages.canonical("/".join(kept), merged=merged)


class Explanation:
    """What is known of a session: feed it ``done`` in the order of the records, then ask for `lines`.

    ``inodes``: keys by path. ``places``: paths by device. ``kept``: state paths, without their leading slash.
    """

    def __init__(self, done: Iterable[Done], inodes: Mapping[str, str]) -> None:
        self._inodes = inodes
        self.by: dict[int, int] = {}
        self.content: dict[str, int] = {}
        self.kind: dict[str, str] = {}
        self.device: dict[str, str] = {}
        self.made: set[str] = set()
        self._metadata: dict[str, int] = {}
        self._content_of: dict[str, int] = {}
        self._metadata_of: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        for one in done:
            self._take(one)

    def _take(self, one: Done) -> None:
        serial, what, _, kind, key, path, _ = one
        self.by[serial] = one.by
        if what == "m":
            self._metadata[path] = self._metadata_of[key] = serial
            return
        if kind == "D":
            # A rename is a deletion, too.
            if self._content_of.get(key) != serial:
                self._gone[key] = serial
            self._metadata.pop(path, None)
        elif self._gone.get(key) == serial:
            del self._gone[key]
        if kind in ("C", "N"):
            self._content_of[key] = serial
        self.content[path] = serial
        self.kind[path] = kind
        self.device[path] = key.partition(" ")[0]
        if kind in ("C", "L"):
            self.made.add(path)

    def last(self, change: Change) -> int:
        """The serial of the call that made a change what it is; 0 where none is known."""
        path, key = change.path, self._inodes.get(change.path, "")
        gone = self.kind.get(path) == "D"
        if change.op == "D":
            found = self.content[path] if gone else 0
        else:
            found = max(0 if gone else self.content.get(path, 0), self._since(self._content_of, key))
        if change.op == "M" or not found:
            found = max(found, self._metadata.get(path, 0), self._since(self._metadata_of, key))
        return found

    def _since(self, what: Mapping[str, int], key: str) -> int:
        """What an inode saw before its file went is another file of that number."""
        serial = what.get(key, 0)
        return serial if serial > self._gone.get(key, 0) else 0


class Left(NamedTuple):
    """What tells of a write that is no change what it is. ``state``: devices of state paths; ``kept``: these paths."""

    unchanged: set[str]
    state: set[str]
    kept: list[str]

    def what(self, path: str, known: Explanation) -> str:
        """What a path is that audit saw and changes.list has not; `-` for what needs no word, empty for a riddle."""
        kind = known.kind[path]
        known_here = self._here(path, known)
        if known_here or kind == "D":
            return known_here or "-"
        over = path.rpartition("/")[0]
        while over:
            if known.kind.get(over) == "D":
                return "transient"
            over = over.rpartition("/")[0]
        return ""

    def _here(self, path: str, known: Explanation) -> str:
        nowhere = _below(path, NOWHERE)
        # /tmp lies on /data as well.
        if _below(path, self.kept) or (known.device[path] in self.state and not nowhere):
            return "state"
        if path in self.unchanged:
            return "unchanged"
        if known.kind[path] == "D" and path in known.made:
            return "transient"
        return "left-out" if nowhere else ""


def _below(path: str, tops: Iterable[str]) -> bool:
    return any(path.startswith(top) and path[len(top) : len(top) + 1] in ("", "/") for top in tops)


class Account:
    """who.list as it comes about. ``unexplained`` counts its riddles."""

    def __init__(self, processes: list[Process], package: Mapping[str, str]) -> None:
        self._processes = processes
        self._package = package
        self._used: set[int] = set()
        self._changes: list[Path | Puzzle] = []
        self._others: list[Also | Puzzle] = []
        self.unexplained = 0

    def changed(self, many: Iterable[Change], known: Explanation, times: set[str]) -> None:
        """A line for each change. ``times``: those of which nothing else changed."""
        for change in many:
            last = known.last(change)
            if last:
                by = known.by[last]
                self._use(by)
                self._changes.append(Path(by, self._package.get(change.path, "-"), change.path))
            else:
                self._changes.append(Puzzle("change", _reason(change, times), change.path))
                self.unexplained += 1

    def also(self, known: Explanation, changed: set[str], left: Left) -> None:
        """A line for each path that was written and is no change."""
        for path, serial in known.content.items():
            if path in changed or path == _OF_THE_RUNNER or path.startswith(_OUTSIDE):
                continue
            what = left.what(path, known)
            if what == "-":
                continue
            if what:
                self._use(known.by[serial])
                self._others.append(Also(what, known.by[serial], path))
            else:
                self._others.append(Puzzle("record", "opened" if known.kind[path] == "N" else "made", path))
                self.unexplained += 1

    def _use(self, number: int) -> None:
        while number and number not in self._used:
            self._used.add(number)
            number = self._processes[number - 1].parent

    def who(self) -> Who:
        """All of it: the processes that it names, and what it says of changes and of what else was seen."""
        named = tuple(_named(self._processes[number - 1]) for number in sorted(self._used))
        return Who(named, tuple(self._changes), tuple(sorted(self._others, key=lambda one: one.path)))


def _reason(change: Change, times: set[str]) -> str:
    if change.linked:
        return "hard-link"
    if change.path in times:
        return "times"
    return "by-handle" if change.op == "M" else "unknown"


def _named(process: Process) -> Named:
    words = process.arguments.split(" ") if process.arguments else []
    return Named(process.number, process.parent, int(process.pid), process.program or "-", tuple(words))
