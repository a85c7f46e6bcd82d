"""Compares what an overlay's upper directory holds with the stack below it: new, changed, deleted, only copied up.

Used on a stage (its changes) and on the running root's upper (drift). What is read from the disk is in entries.py and
contents.py; the decision here is a pure function over two dictionaries of entries.
"""

from __future__ import annotations

import gc
import os
from typing import Any, NamedTuple

from pyinfra_overlaymig.format.changes import Change
from pyinfra_overlaymig.format.octal import escape_path, unescape_path
from pyinfra_overlaymig.runner import contents, entries, halves, trees
from pyinfra_overlaymig.runner.entries import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pyinfra_overlaymig.runner.contents import Content

_ALONE = 1000
"""Of fewer files, a half is less than what a second process costs."""
_OFTEN = 500
"""Files between two looks at whether it is to go on."""


class Comparison(NamedTuple):
    """What a comparison found, by escaped paths in the order of their bytes.

    ``times``: those of the changes where nothing but the time differs. ``unchanged``: entries that the upper holds for
    nothing. ``carriers``: directories that are only there for what they hold.
    """

    changes: list[Change]
    times: list[str]
    unchanged: list[str]
    carriers: list[str]


class Verdict(NamedTuple):
    """What is to be said of one entry. ``inode``: of a file that has several names, else 0."""

    name: bytes
    op: str
    fields: tuple[str, ...] = ()
    inode: int = 0


def compare(
    upper: str, lower: str, paths: Iterable[str] | None = None, check: Callable[[int, int], None] = lambda _, __: None
) -> Comparison:
    """What ``upper`` changes in the tree ``lower`` that is below it; with ``paths``, only at these of its entries.

    ``check`` is called now and then with the bytes that are read and that there are, and may raise: no file is so large
    that it could not be interrupted.
    """
    # Its rounds over hundreds of thousands of tuples, none of which is in a circle, would take half of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _compare(upper, lower, paths, check)
    finally:
        if collects:
            gc.enable()


def _compare(upper: str, lower: str, paths: Iterable[str] | None, check: Callable[[int, int], None]) -> Comparison:
    scan = entries.Scan(upper, lower)
    if paths is None:
        scan.directories(lambda: check(0, 0))
    else:
        scan.some(set(paths))
    found = judge(scan.above, scan.below, {})
    files, large = _files(upper, lower, scan.files, check)
    above = {one[0]: Entry(*one[1]) for one in large}
    below = {one[0]: Entry(*one[2]) for one in large if one[2]}
    read = contents.large(upper, lower, [_wanted(path, one, below.get(path)) for path, one in above.items()], check)
    return gather([*found, *files, *judge(above, below, read)])


def _files(
    upper: str, lower: str, files: list[tuple[str, bool]], check: Callable[[int, int], None]
) -> tuple[list[Verdict], list[Any]]:
    """Verdicts on what is no directory, and the large files among them, with what the stack has there."""
    share = _Share(upper, lower)
    if len(files) < _ALONE:
        return share.judge(files, check)
    half = len(files) // 2
    mine, other = halves.both(
        lambda: share.judge(files[:half], check),
        lambda: share.judge(files[half:], lambda _, __: None),
        lambda: check(0, 0),
    )
    return [*mine[0], *(Verdict(*one) for one in other[0])], [*mine[1], *other[1]]


class _Share:
    """A share of the files: they are looked at, and the small ones read."""

    def __init__(self, upper: str, lower: str) -> None:
        self.upper = upper
        self.lower = lower

    def judge(self, files: list[tuple[str, bool]], check: Callable[[int, int], None]) -> tuple[list[Any], list[Any]]:
        scan = entries.Scan(self.upper, self.lower)
        read: dict[str, Content] = {}
        large = []
        for number, (path, fresh) in enumerate(files):
            if number % _OFTEN == 0:
                check(0, 0)
            looked = scan.look(path, fresh=fresh)
            if looked is None or looked[0].kind != "f":
                continue
            entry, was = looked
            if entry.size > contents.SMALL:
                large.append((path, tuple(entry), None if was is None else tuple(was)))
            elif (found := contents.content(self.upper, self.lower, _wanted(path, entry, was))) is not None:
                read[path] = found
        return [tuple(one) for one in judge(scan.above, scan.below, read)], large


def _wanted(path: str, entry: Entry, was: Entry | None) -> contents.Wanted:
    alike = was is not None and was.kind == "f" and was.size == entry.size
    same = alike and was is not None and _same_owner(entry, was) and entry.mtime == was.mtime
    return contents.Wanted(path, entry.size, alike, same)


def _same_owner(entry: Entry, was: Entry) -> bool:
    return entry[1:4] == was[1:4] and entry.attributes == was.attributes


def compare_lists(above: Mapping[str, Entry], below: Mapping[str, Entry], read: Mapping[str, Content]) -> Comparison:
    """The decision, over two whole trees. A file that is in ``above`` and was not ``read`` went meanwhile."""
    fresh: set[str] = set()
    shown = {}
    for path in sorted(above):
        # Parents sort before what they hold.
        if path.rpartition("/")[0] not in fresh and path in below:
            shown[path] = below[path]
        if above[path].kind == "d" and entries.hides(above[path], shown.get(path)):
            fresh.add(path)
    return gather(judge(above, shown, read))


def judge(above: Mapping[str, Entry], below: Mapping[str, Entry], read: Mapping[str, Content]) -> list[Verdict]:
    """A verdict on each entry, by itself; ``below`` has nothing where a directory above hides the stack."""
    found = []
    for path, entry in above.items():
        if entry.kind == "f" and path not in read:
            continue
        name = os.fsencode(escape_path(path))
        op = operation(entry, below.get(path), read.get(path))
        if op in CHANGES:
            found.append(Verdict(name, op, _fields(entry, read.get(path)), entry.inode if _linked(entry) else 0))
        else:
            found.append(Verdict(name, op))
    return found


CHANGES = ("A", "C", "M", "M times")


def _linked(entry: Entry) -> bool:
    return entry.kind == "f" and entry.links > 1


def operation(entry: Entry, was: Entry | None, content: Content | None) -> str:
    """The table of kinds: what an entry of an upper means, where the stack shows ``was``."""
    if entry.kind == "w":
        return "unchanged" if was is None else "D"
    if was is None:
        return "A"
    if entry.kind != was.kind or entry.opaque or _other_content(entry, was, content):
        return "C"
    if not _same_owner(entry, was):
        return "M"
    if entry.kind == "d":
        return "carrier"
    return "unchanged" if entry.mtime == was.mtime else "M times"


def _other_content(entry: Entry, was: Entry, content: Content | None) -> bool:
    if entry.kind == "f":
        return content is None or not content.same
    return entry.link != was.link or (entry.kind in "bc" and entry.device != was.device)


def _fields(entry: Entry, content: Content | None) -> tuple[str, ...]:
    size, digest = ("0", "-") if content is None else (str(entry.size), content.digest)
    return (
        entry.kind, f"{entry.mode:o}", str(entry.uid), str(entry.gid), size, digest, entry.attributes or "-",
        f"-> {entry.link}" if entry.kind == "l" else "",
    )  # fmt: skip


def gather(verdicts: list[Verdict]) -> Comparison:
    """The lists, in the order of the escaped names' bytes; hard links are told by the first of their names."""
    found = Comparison([], [], [], [])
    first: dict[int, str] = {}
    for name_bytes, op, fields, inode in sorted(verdicts):
        name = os.fsdecode(name_bytes)
        if op in CHANGES:
            note = fields[7]
            if inode and first.setdefault(inode, name) != name:
                note = f"== {first[inode]}"
            kind, mode, uid, gid, size, digest, extra = fields[:7]
            found.changes.append(Change(op[0], kind, mode, uid, gid, size, digest, extra, name, note))
            if op == "M times":
                found.times.append(name)
        elif op == "D":
            found.changes.append(Change("D", "-", "-", "-", "-", "-", "-", "-", name, ""))
        else:
            (found.carriers if op == "carrier" else found.unchanged).append(name)
    return found


def prune(upper: str, comparison: Comparison) -> None:
    """Takes out of an upper without a mount what is no change: copied-up files, directories that hold nothing."""
    for name in comparison.unchanged:
        path = f"{upper}/{unescape_path(name)}"
        if os.lstat(path).st_nlink > 1:
            trees.forget_origin(path)
        os.unlink(path)
    for name in reversed(comparison.carriers):
        trees.remove_empty(f"{upper}/{unescape_path(name)}")
