"""What is told of a migration, in metadata.json and in `status`: read from its folder, and only from there."""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import FormatError, lines, octal
from pyinfra_overlaymig.format import plan as plan_format
from pyinfra_overlaymig.format import record as record_format
from pyinfra_overlaymig.format.paths import MIGRATIONS
from pyinfra_overlaymig.runner import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyinfra_overlaymig.format.record import Record

KEYS = (
    *("id", "digest", "status", "applied_at", "generation", "active", "files", "size"),
    *("audit", "lost", "unexplained", "state", "services", "local", "content", "conflicts"),
)
_READ = ("record", "applied")


def all_of_them() -> list[dict[str, Any]]:
    """All migrations that have a record, by their ids."""
    from pyinfra_overlaymig.runner import metadata

    return metadata.read().migrations


def told(id: str, stack: frozenset[str]) -> dict[str, Any] | None:
    """The migration ``id``; ``stack``: what is active. None where there is no record: it is being reverted, or none was
    made yet.
    """
    text = files.read(f"{MIGRATIONS}/{id}/record")
    if not text:
        return None
    applied = lines.value(files.read(f"{MIGRATIONS}/{id}/applied"), "at")
    status = "applied" if os.path.isfile(f"{MIGRATIONS}/{id}/applied") else "committed"
    try:
        found = record_format.parse(text)
    except FormatError:
        # It is there, and whoever reads that has to look at it.
        status, found = "unreadable", record_format.Record("", 0)
    return dict(zip(KEYS, (id, found.digest, status, applied, *_values(id, found, stack)), strict=True))


def _values(id: str, found: Record, stack: frozenset[str]) -> tuple[object, ...]:
    seen = found.audit
    return (
        found.generation,
        id in stack,
        found.files,
        found.size,
        seen.state if seen else "",
        seen.lost if seen else None,
        seen.unexplained if seen else None,
        list(map(octal.escape_text, found.state)),
        list(found.services),
        *_planned(id),
    )


def _planned(id: str) -> tuple[bool, str, list[str]]:
    """Whether it was made on the machine, a word for what it is but for its id, and what conflicts with it."""
    text = files.read(f"{MIGRATIONS}/{id}/manifest")
    content = plan_format.content(text) if text else ""
    return lines.value(text, "local") == "yes", content, lines.values(text, "conflicts")


def stamp(id: str) -> tuple[int, str]:
    """When what is told of ``id`` changed last, as the kernel counts, and a word for just this state of it.

    Renamed into place or written to, it is another one: by inode, or by a time that nobody can set.
    """
    newest, words = 0, []
    for name in _READ:
        try:
            one = os.stat(f"{MIGRATIONS}/{id}/{name}")
        except FileNotFoundError:
            words.append("-")
            continue
        newest = max(newest, one.st_ctime_ns)
        words.append(f"{one.st_ino:x}.{one.st_ctime_ns:x}")
    return newest, ":".join(words)
