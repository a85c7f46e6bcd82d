"""What a record says of changes, and of who made them, as a text for people: by package and directory. Records only: it
looks at nothing else of the machine.
"""

from __future__ import annotations

import os
import re

from pyinfra_overlaymig.format import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

_OPS: Final = "ACMD"
_PARTS: Final = 4
"""Paths of more parts stand for their first ones."""
_INTERPRETER: Final = re.compile(r"sh|dash|bash|perl|python[0-9.]*")
_THOUSAND: Final = 1000
_UNITS: Final = ("kB", "MB", "GB")


class Who:
    """A who.list, as far as it is shown."""

    def __init__(self, text: str) -> None:
        self._parent: dict[str, str] = {}
        self._program: dict[str, str] = {}
        self._arguments: dict[str, list[str]] = {}
        self._chains: dict[str, str] = {}
        self.by: dict[str, str] = {}
        """The process that changed a path last."""
        self.package: dict[str, str] = {}
        self.also: dict[tuple[str, str], int] = {}
        """How many paths, by why they are no changes, and by place."""
        self.also_by: dict[tuple[str, str], str] = {}
        self.puzzles: list[str] = []
        for line in lines.split(text):
            self._take(line.split(" "))

    def _take(self, words: list[str]) -> None:
        kind = words[0]
        if kind == "process":
            number = words[1]
            self._parent[number], self._program[number], self._arguments[number] = words[2], words[4], words[5:]
        elif kind == "path":
            self.by[words[3]], self.package[words[3]] = words[1], words[2]
        elif kind == "also":
            key = (words[1], _place(words[3]))
            self.also[key] = self.also.get(key, 0) + 1
            self.also_by[key] = words[2]
        elif kind == "unexplained":
            self.puzzles.append(f"{words[1]}: {words[2]}: /{words[3]}")

    def chain(self, number: str) -> str:
        """A process and those that started it, up to the install script."""
        found = self._chains.get(number)
        if found is None:
            found = self._chains[number] = " < ".join(self._names(number))
        return found

    def _names(self, number: str) -> Iterator[str]:
        last = ""
        while number in self._program:
            name = self._called(number)
            if name == "env" and any("--default-signal=" in word for word in self._arguments[number]):
                # What `capture` starts a command through.
                return
            if name == "init.sh":
                yield "system-migrate"
                return
            if name not in (last, "frontend"):
                yield name
            if name == "install.sh":
                return
            last, number = name, self._parent[number]

    def _called(self, number: str) -> str:
        """A program, or the script that an interpreter runs; what the runner did itself is called as it was in sh."""
        arguments = self._arguments[number]
        if arguments[:1] == ["system-migrate"]:
            return "init.sh"
        found = os.path.basename(self._program[number])
        if not _INTERPRETER.fullmatch(found):
            return found
        for place, word in enumerate(arguments[1:], 1):
            if not word.startswith("-"):
                is_script = word.startswith("/") and not (place > 1 and arguments[place - 1] == "-c")
                return os.path.basename(word) if is_script else found
        return found


class _Group:
    """Changes of one package, or of one directory of it."""

    def __init__(self) -> None:
        self.ops = dict.fromkeys(_OPS, 0)
        self.size = 0
        self.whos = ""
        self._seen: set[str] = set()

    def add(self, op: str, size: int) -> None:
        self.ops[op] = self.ops.get(op, 0) + 1
        self.size += size

    def done_by(self, chain: str) -> None:
        if chain not in self._seen:
            self._seen.add(chain)
            self.whos = f"{self.whos}; {chain}" if self.whos else chain

    @property
    def count(self) -> int:
        return sum(self.ops.values())

    def line(self, place: str) -> str:
        ops = "".join(f"{op}{self.ops[op]} " for op in _OPS if self.ops[op])
        whos = f"  {self.whos}" if self.whos else ""
        return f"    {ops:<14} {_amount(self.size):>9}  {place}{whos}"


def text(id: str, record: str, changes: str, who: str) -> str:
    """The whole of it, from the files of a record."""
    seen = Who(who)
    groups, places = _grouped(lines.split(changes), seen)
    count, size = sum(one.count for one in groups.values()), sum(one.size for one in groups.values())
    found = [f"{id}: {count} changes, {_amount(size)}", _audit(dict(lines.pairs(record)))]
    # An empty line, which sorts before it, is above each package.
    shown = [((name, 0, ""), "") for name in groups]
    shown += [((name, 0, ""), f"{name}: {one.count} changes, {_amount(one.size)}") for name, one in groups.items()]
    shown += [((name, 1, place), one.line(place)) for (name, place), one in places.items()]
    found += [line for _, line in sorted(shown, key=_in_bytes)]
    found += _others(seen)
    found += ["", "A added, C changed, M metadata, D deleted"]
    return "".join(f"{line}\n" for line in found)


def _in_bytes(one: tuple[tuple[str, int, str], str]) -> tuple[bytes, int, bytes]:
    (group, rank, place), line = one
    return os.fsencode(group), rank, os.fsencode(f"{place}\t{line}")


def _grouped(changes: Iterable[str], who: Who) -> tuple[dict[str, _Group], dict[tuple[str, str], _Group]]:
    groups: dict[str, _Group] = {}
    places: dict[tuple[str, str], _Group] = {}
    for change in changes:
        op, _, _, _, _, amount, _, _, path, *_ = change.split(" ", 9)
        package = who.package.get(path, "-")
        name = "(no package)" if package == "-" else package
        size = int(amount) if amount.isdecimal() else 0
        group = groups.get(name) or groups.setdefault(name, _Group())
        key = name, _place(path)
        place = places.get(key) or places.setdefault(key, _Group())
        group.add(op, size)
        place.add(op, size)
        if path in who.by:
            place.done_by(who.chain(who.by[path]))
    return groups, places


def _audit(record: dict[str, str]) -> str:
    numbers = ""
    if "events" in record:
        counted = (record.get(key, "") for key in ("events", "lost", "unexplained"))
        numbers = ", {} events, {} lost, {} unexplained".format(*counted)
    return f"audit: {record.get('audit') or 'not recorded'}{numbers}"


def _others(who: Who) -> list[str]:
    """What audit saw and the layer does not have, and what only one of both has."""
    found = []
    if who.also:
        also = [
            f"    {what:<10} {count:5}  {place}  {who.chain(who.also_by[what, place])}"
            for (what, place), count in who.also.items()
        ]
        found += ["", "also seen:", *sorted(also, key=os.fsencode)]
    if who.puzzles:
        found += ["", "unexplained:", *(f"    {one}" for one in who.puzzles)]
    return found


def _amount(size: float) -> str:
    unit = 0
    while size >= _THOUSAND and unit < len(_UNITS):
        size /= _THOUSAND
        unit += 1
    return f"{size:.1f} {_UNITS[unit - 1]}" if unit else f"{size:.0f} B"


def _place(path: str) -> str:
    """The directory that ``path`` lies in, of four parts at most."""
    parts = path.split("/", _PARTS)[:_PARTS] if path.count("/") >= _PARTS else path.split("/")[:-1]
    return f"/{'/'.join(parts)}"
