"""How drift is told: a table for people, one JSON list for programs, or the lines of changes.list, all of them."""

from __future__ import annotations

import json

from pyinfra_overlaymig.format.changes import OPS
from pyinfra_overlaymig.format.paths import is_below
from pyinfra_overlaymig.runner.say import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pyinfra_overlaymig.format.changes import Change

_KINDS = {
    "f": "file",
    "d": "directory",
    "l": "link",
    "p": "fifo",
    "s": "socket",
    "b": "device",
    "c": "device",
    "-": "-",
}
_MANY = 50
"""Of a directory that was made by hand, so many entries are one line."""
_UNITS = ("B", "KB", "MB", "GB", "TB")
_STEP = 1000
_WHOLE = 10
"""From here on no digit follows the point."""


def table(found: Sequence[Change], nobodys: int) -> str:
    """For people; ``nobodys``: how many entries are left out. Nothing where there is nothing."""
    rows = [_row(change, held) for change, held in _folded(found)]
    rows = [("what", "kind", "mode", "size", "path"), *rows] if rows else []
    widths = [max(len(row[at]) for row in rows) for at in range(4)] if rows else []
    lines = [" ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[4]]) for row in rows]
    if nobodys:
        lines.append(f"(left out, as nobody's: {nobodys} of caches, logs and the like; drift --raw has them)")
    return "".join(f"{harmless(line)}\n" for line in lines)


def _row(change: Change, held: Sequence[Change]) -> tuple[str, str, str, str, str]:
    sizes = [int(one.size) for one in (change, *held) if one.kind == "f" and one.size.isdecimal()]
    more = f"/ and {len(held)} in it" if held else f" {change.note}" if change.note else ""
    size = _size(sum(sizes)) if sizes else "-"
    return OPS[change.op], _KINDS.get(change.kind, change.kind), change.mode, size, f"/{change.path}{more}"


def _folded(found: Sequence[Change]) -> Iterator[tuple[Change, Sequence[Change]]]:
    """Each change; of a directory that was made with very much in it, that alone, and all it holds."""
    by_path = sorted(found, key=lambda change: change.path.split("/"))
    at = 0
    while at < len(by_path):
        change, end = by_path[at], at + 1
        if change.op == "A" and change.kind == "d":
            while end < len(by_path) and is_below(by_path[end].path, change.path):
                end += 1
        held = by_path[at + 1 : end] if end - at > _MANY else []
        yield change, held
        at += 1 + len(held)


def _size(size: float) -> str:
    for unit in _UNITS:
        if size < _STEP or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= _WHOLE else f"{size:.1f} {unit}"
        size /= _STEP
    return ""


def document(found: Iterable[Change]) -> str:
    """For programs; paths are escaped as in changes.list."""
    return json.dumps([_object(change) for change in found], indent=1) + "\n"


def _object(change: Change) -> dict[str, object]:
    numbers = {key: int(value) for key in ("uid", "gid", "size") if (value := getattr(change, key)).isdecimal()}
    note = {"target" if change.note.startswith("-> ") else "same_as": change.note[3:]} if change.note else {}
    mode = {} if change.mode == "-" else {"mode": change.mode}
    return {
        "path": f"/{change.path}",
        "what": OPS[change.op],
        "kind": change.kind,
        "size": 0,
        **numbers,
        **mode,
        **note,
    }
