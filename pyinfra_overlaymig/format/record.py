"""The record of a migration: what it is the layer of, and what it brought. Keys that are not known are kept."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import FORMAT, audit, lines, octal
from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_overlaymig.format.audit import Audit

_ONCE = ("format", "digest", "generation", "base", "below", "layer", "files", "size", "time", *audit.KEYS)


class Record(NamedTuple):
    """``digest``: SHA-256 of its plan; ``below``: of the stack that the layer is over; ``layer``: of its changes.list.

    ``files``: how many changes. ``size`` in bytes. ``state`` is not escaped. ``more``: what is unknown to this version.
    """

    digest: str
    generation: int
    base: str = ""
    below: str = ""
    layer: str = ""
    files: int = 0
    size: int = 0
    state: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    audit: Audit | None = None
    more: tuple[tuple[str, str], ...] = ()
    time: str = ""
    """Nanoseconds since the epoch, of all that the bundle brought; empty in records of older runners."""


def parse(text: str) -> Record:
    """The record that ``text`` is; FormatError where it is none, or only a part of one."""
    once: dict[str, str] = {}
    many: dict[str, list[str]] = {"state": [], "service": []}
    more = []
    for key, value in lines.pairs(lines.whole(text)):
        if key in many:
            many[key].append(value)
        elif key not in _ONCE:
            more.append((key, value))
        elif once.setdefault(key, value) != value:
            raise FormatError(f"the record has two lines of {key}")
    if once.get("format") != str(FORMAT):
        raise FormatError(f"the record has format {once.get('format')}, this program reads {FORMAT}")
    return Record(
        once.get("digest", ""),
        lines.number(once.get("generation", ""), "generation"),
        once.get("base", ""),
        once.get("below", ""),
        once.get("layer", ""),
        lines.number(once.get("files", "0"), "files"),
        lines.number(once.get("size", "0"), "size"),
        # Paths that were found in a stage by the runner in sh are escaped as in changes.list.
        tuple(map(octal.unescape_path, many["state"])),
        tuple(many["service"]),
        audit.parse(once),
        tuple(more),
        once.get("time", ""),
    )


def text(record: Record) -> str:
    """The file that ``record`` is."""
    return lines.join(_pairs(record))


def _pairs(record: Record) -> Iterator[tuple[str, object]]:
    watched = record.audit.pairs() if record.audit else []
    # What audit saw is known last, and then stands last.
    explained = record.audit is not None and record.audit.events is not None
    yield "format", FORMAT
    for key in ("digest", "generation", "base", "below", "layer"):
        yield key, getattr(record, key)
    if not explained:
        yield from watched
    yield "files", record.files
    yield "size", record.size
    if record.time:
        yield "time", record.time
    for path in record.state:
        yield "state", octal.escape_text(path)
    for name in record.services:
        yield "service", name
    yield from record.more
    if explained:
        yield from watched
