"""Reads which mounts a process sees, from /proc/PID/mountinfo; it mounts nothing."""

from __future__ import annotations

import os
from typing import NamedTuple


class Mount(NamedTuple):
    """One line of mountinfo. ``id`` and ``parent`` are the kernel's numbers; ``place`` is unescaped."""

    id: int
    parent: int
    device: str
    root: str
    place: str
    options: str
    kind: str
    source: str
    data: str = ""
    """Options of its file system, as the kernel says them."""


def read(pid: int | str = "self") -> list[Mount]:
    """The mounts that process ``pid`` sees, in the kernel's order: of several at one place the last one is on top."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [_mount(line) for line in file]


def _mount(line: str) -> Mount:
    # Optional fields end with a dash.
    about, _, filesystem = line.rstrip("\n").partition(" - ")
    id, parent, device, root, place, options, *_ = about.split(" ")
    kind, source, data = filesystem.split(" ", 2)
    return Mount(int(id), int(parent), device, unescape(root), unescape(place), options, kind, source, data)


def unescape(field: str) -> str:
    """A field as it was: the kernel writes blanks, tabs, newlines and backslashes as three octal digits."""
    if "\\" not in field:
        return field
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def at(place: str, pid: int | str = "self") -> Mount | None:
    """The mount on top at ``place``, None where nothing is mounted."""
    found = [one for one in read(pid) if one.place == place]
    return found[-1] if found else None


def visible(mounts: list[Mount]) -> dict[str, Mount]:
    """By its place, each that can be reached: nothing was mounted over it, nor over a directory that it is below."""
    children: dict[int, list[Mount]] = {}
    for one in mounts:
        children.setdefault(one.parent, []).append(one)
    ids = {one.id for one in mounts}
    found: dict[str, Mount] = {}
    waiting = [one for one in mounts if one.parent not in ids]
    while waiting:
        here = waiting.pop()
        found[here.place] = here
        held = children.get(here.id, [])
        # Of two on the same mount, the one above came later: else the other one would be on it.
        waiting += [one for one in held if not any(one is not other and _holds(other, one) for other in held)]
    return found


def _holds(one: Mount, other: Mount) -> bool:
    return other.place.startswith(f"{one.place.rstrip('/')}/")


def covered(mounts: list[Mount]) -> set[tuple[str, str]]:
    """What each lies over: the device, and the path in its file system, by whichever mount of that it is named."""
    by_id = {one.id: one for one in mounts}
    return {_inner(by_id[one.parent], one.place) for one in mounts if one.parent in by_id}


def inner(path: str, mounts: list[Mount]) -> tuple[str, str]:
    """The device that ``path`` is on, and its path in the file system there."""
    holding = [one for place, one in visible(mounts).items() if place in ("/", path) or path.startswith(f"{place}/")]
    return _inner(max(holding, key=lambda one: len(one.place)), path)


def _inner(one: Mount, path: str) -> tuple[str, str]:
    return one.device, f"{one.root.rstrip('/')}/{path[len(one.place.rstrip('/')) + 1 :]}".rstrip("/")


def is_mount(path: str) -> bool:
    """Whether something is mounted at ``path``; not so where it is a link."""
    return at(os.path.normpath(path)) is not None
