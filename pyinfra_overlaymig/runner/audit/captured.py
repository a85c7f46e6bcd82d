"""Explains a command that ran in the running root: no upper directory tells what it changed, only audit does."""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.format.paths import LIVE
from pyinfra_overlaymig.runner.audit import explaining, packages, places
from pyinfra_overlaymig.runner.audit.explain import Account, Explanation, Left, parse, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.runner.audit.explain import Done
    from pyinfra_overlaymig.runner.audit.records import Event

_OURS = "data/system/"
_TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
}


def explain(directory: str, upper: str) -> None:
    """Writes changes.list in ``directory``, and audit/who, of the session there. ``upper``: the live one, if any."""
    here = f"{directory}/audit"
    of = explaining.watched(here)
    reader = explaining.read(directory, of)
    known = [*places.inodes(upper, f"{LIVE}/.", "")] if os.path.isdir(upper) else []
    # Where the root is an overlay, its upper is noted already.
    known += places.by_number(_numbers(reader.events), of, LIVE, but="/" if known else "")
    places.write(f"{here}/inodes", known)
    merged = packages.merged_usr()
    names, inodes = explaining.named(here)
    done = resolve(reader.events, names, f"{directory}/root/", merged=merged)
    lines = [line for path, op in sorted(touched(done).items()) if (line := _line(path, op))]
    places.write(f"{directory}/changes.list", lines)
    changes = parse(lines)
    changed = {change.path for change in changes}
    explained = Explanation(done, inodes)
    account = Account(reader.processes.all, packages.known([LIVE], changed, merged=merged))
    account.changed(changes, explained, set())
    account.also(explained, changed, Left(set(), explaining.beside(of), []))
    explaining.write(here, account, reader.seen)


def _numbers(events: Iterable[Event]) -> dict[str, set[str]]:
    """What is known by its number alone: it was reached through an open directory."""
    found: dict[str, set[str]] = {}
    for event in events:
        if event.relative:
            numbers = found.setdefault(event.device, set())
            numbers.add(f"{event.inode} {event.directory or 'f'}")
            if event.above:
                numbers.add(f"{event.above} d")
    return found


def touched(done: Iterable[Done]) -> dict[str, str]:
    """What happened to each path in the end, as changes.list has it; what was described or opened counts as changed."""
    kinds: dict[str, str] = {}
    for one in done:
        if not one.path.startswith(_OURS):
            kinds[one.path] = _next(kinds.get(one.path, ""), one)
    return {path: kind for path, kind in kinds.items() if kind != "-"}


def _next(before: str, one: Done) -> str:
    if one.what == "m":
        return before or "M"
    if one.kind in ("C", "L"):
        # What takes the place of something that was there is a change of it.
        return "C" if before in ("C", "D") else "A"
    if one.kind == "D":
        return "-" if before == "A" else "D"
    return "A" if before == "A" else "C"


def _line(path: str, op: str) -> str:
    """The line of changes.list, as far as it can be known; empty for what went meanwhile."""
    place = f"{LIVE}/{places.unescape(path)}"
    try:
        found = os.lstat(place)
        target = f" -> {places.escape(os.readlink(place))}" if stat.S_ISLNK(found.st_mode) else ""
    except (FileNotFoundError, NotADirectoryError):
        return f"D - - - - - - - {path}" if op == "D" else ""
    kind = _TYPES[stat.S_IFMT(found.st_mode)]
    size = found.st_size if kind == "f" else 0
    mode = f"{stat.S_IMODE(found.st_mode):o}"
    return f"{'C' if op == 'D' else op} {kind} {mode} {found.st_uid} {found.st_gid} {size} - - {path}{target}"
