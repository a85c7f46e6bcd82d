"""Packs a migration as bytes that are the same on every machine."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from pyinfra_overlaymig.errors import InvalidMigration, unreadable
from pyinfra_overlaymig.migration.model import Member, Migration
from pyinfra_overlaymig.migration.packing import TAR_END, Count, Packets, compressed, tar_member
from pyinfra_overlaymig.migration.services import Rendered, render

_BUFFER = 1 << 18


@dataclass(frozen=True)
class Entry:
    """A link to ``target``, or a file: of ``content``, or of what is read from ``member`` when its turn comes."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    target: str | None = None
    member: Member | None = None

    @property
    def sha256(self) -> str:
        return self.member.sha256 if self.member else sha256(self.content)


def pack(migration: Migration) -> bytes:
    """``migration`` as the tar.gz that `system-migrate apply -` reads."""
    return b"".join(tar_gz(_bundle(migration)))


def packed(migration: Migration) -> Packets:
    """The same in packets, which come while they are sent; InvalidMigration, then, where a file cannot be read."""
    count = Count(size(migration))
    return Packets(tar_gz(_bundle(migration), count), count)


def size(migration: Migration) -> int:
    """Bytes of its files, about, as they may change until they are packed."""
    return sum(member.source.stat().st_size for member in migration.members if member.source.exists())


def _bundle(migration: Migration) -> list[Entry]:
    files = [
        Entry("plan", migration.plan),
        Entry("limits", migration.limits),
        *_members(migration),
        *_services(migration),
    ]
    links = [Entry(link.path, target=link.target) for link in migration.links]
    return [*files, *links, Entry("sums", _sums(files))]


def archive(files: Iterable[Rendered]) -> bytes:
    """A service directory as a tar.gz."""
    return b"".join(tar_gz([Entry(file.path, file.text.encode("utf-8"), file.mode) for file in files]))


def _members(migration: Migration) -> Iterator[Entry]:
    for member in migration.members:
        yield Entry(member.path, mode=member.mode, member=member)


def _services(migration: Migration) -> Iterator[Entry]:
    for service in migration.services:
        for file in render(migration, service):
            path = f"services/{service.name}/{file.path}"
            content = file.text.encode("utf-8")
            yield Entry(path, content, file.mode)


def sha256(content: bytes) -> str:
    """Its digest (hex)."""
    return hashlib.sha256(content).hexdigest()


def _sums(files: list[Entry]) -> bytes:
    """As `sha256sum` writes it: a name with a newline or backslash is escaped, its line marked."""
    lines = []
    for file in sorted(files, key=by_path):
        name = os.fsencode(file.path)
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        mark = b"\\" if escaped != name else b""
        lines.append(mark + file.sha256.encode("ascii") + b"  " + escaped + b"\n")
    return b"".join(lines)


def by_path(entry: Entry) -> bytes:
    """The key of the order in which entries are packed, and `sort` has them."""
    return os.fsencode(entry.path)


def _parents(entries: list[Entry]) -> set[str]:
    parents: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")
        parents.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return parents


def tar_gz(entries: list[Entry], count: Count | None = None) -> Iterator[bytes]:
    """A tar.gz of ``entries`` and the directories above them, without owner, time or chance."""
    return compressed(_tar(entries, count or Count(0)))


def _tar(entries: list[Entry], count: Count) -> Iterator[bytes]:
    for path in sorted(_parents(entries), key=os.fsencode):
        yield from tar_member(_header(path, tarfile.DIRTYPE, 0o755))
    for entry in sorted(entries, key=by_path):
        if entry.target is not None:
            link = _header(entry.path, tarfile.SYMTYPE, 0o777)
            link.linkname = entry.target
            yield from tar_member(link)
        else:
            header = _header(entry.path, tarfile.REGTYPE, entry.mode)
            yield from _member(header, entry.member, count) if entry.member else _file(header, entry.content)
    yield TAR_END


def _file(header: tarfile.TarInfo, content: bytes) -> Iterator[bytes]:
    header.size = len(content)
    return tar_member(header, [content])


def _member(header: tarfile.TarInfo, member: Member, count: Count) -> Iterator[bytes]:
    """A bundle never holds anything but what its plan says."""
    try:
        with member.source.open("rb") as file:
            header.size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256()
            yield from tar_member(header, count.of(_read(file, header.size, digest)))
    except OSError as error:
        raise unreadable(member.source, error) from error
    if digest.hexdigest() != member.sha256:
        raise InvalidMigration("changed while it was being packed", hint="run it again", file=member.source)


def _read(file: IO[bytes], size: int, digest: hashlib._Hash) -> Iterator[bytes]:
    """As many bytes as were promised; where the file has become shorter, the digest will not fit."""
    while size and (piece := file.read(min(size, _BUFFER))):
        digest.update(piece)
        size -= len(piece)
        yield piece


def _header(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type = kind
    header.mode = mode
    header.uname = header.gname = "root"
    return header
