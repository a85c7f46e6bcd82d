"""Packs a migration, and the runner itself, as bytes that are the same on every machine."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import IO

from pyinfra_overlaymig.errors import InvalidMigration, OverlaymigError, unreadable
from pyinfra_overlaymig.migration.model import Member, Migration
from pyinfra_overlaymig.migration.packing import TAR_END, Count, Packets, compressed, tar_member
from pyinfra_overlaymig.migration.services import Rendered, render

PACKAGE = "pyinfra_overlaymig"
RUNNER = "runner"
_BUFFER = 1 << 18
LAUNCHER = f"{PACKAGE}/{RUNNER}/system-migrate"
"""Where the runner's archive has the program."""


@dataclass(frozen=True)
class _Entry:
    """A link to ``target``, or a file: of ``content``, or of what is read from ``member`` when its turn comes."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    target: str | None = None
    member: Member | None = None

    @property
    def sha256(self) -> str:
        return self.member.sha256 if self.member else _sha256(self.content)


def pack(migration: Migration) -> bytes:
    """``migration`` as the tar.gz that `system-migrate apply -` reads."""
    return b"".join(_tar_gz(_bundle(migration)))


def packed(migration: Migration) -> Packets:
    """The same in packets, which come while they are sent; InvalidMigration, then, where a file cannot be read."""
    count = Count(size(migration))
    return Packets(_tar_gz(_bundle(migration), count), count)


def size(migration: Migration) -> int:
    """Bytes of its files, about, as they may change until they are packed."""
    return sum(member.source.stat().st_size for member in migration.members if member.source.exists())


def _bundle(migration: Migration) -> list[_Entry]:
    files = [
        _Entry("plan", migration.plan),
        _Entry("limits", migration.limits),
        *_members(migration),
        *_services(migration),
    ]
    links = [_Entry(link.path, target=link.target) for link in migration.links]
    return [*files, *links, _Entry("sums", _sums(files))]


def archive(files: Iterable[Rendered]) -> bytes:
    """A service directory as a tar.gz."""
    return b"".join(_tar_gz([_Entry(file.path, file.text.encode("utf-8"), file.mode) for file in files]))


@cache
def runner_archive() -> tuple[bytes, str]:
    """The runner as a tar.gz, with the digest (hex) that a machine reports once it is there."""
    files = list(_runner_files())
    listing = "".join(f"{_sha256(file.content)}  {file.path}\n" for file in files)
    digest = _sha256(listing.encode("ascii"))
    return b"".join(_tar_gz([*files, _Entry("digest", f"{digest}\n".encode("ascii"))])), digest


def _members(migration: Migration) -> Iterator[_Entry]:
    for member in migration.members:
        yield _Entry(member.path, mode=member.mode, member=member)


def _services(migration: Migration) -> Iterator[_Entry]:
    for service in migration.services:
        for file in render(migration, service):
            path = f"services/{service.name}/{file.path}"
            content = file.text.encode("utf-8")
            yield _Entry(path, content, file.mode)


def _runner_files() -> Iterator[_Entry]:
    """The package as it lies here, but for what only the operator's side needs."""
    top = resources.files(PACKAGE)
    if not (top / RUNNER / "system-migrate").is_file():
        raise OverlaymigError(
            "the runner is not in this installation of overlaymig",
            hint="install the package again, or run from a whole checkout",
        )
    found = [_Entry(f"{PACKAGE}/__init__.py", (top / "__init__.py").read_bytes())]
    for room in ("format", RUNNER):
        found += _of_room(top / room, f"{PACKAGE}/{room}")
    yield from sorted(found, key=_by_path)


def _of_room(room: Traversable, path: str) -> Iterator[_Entry]:
    for one in room.iterdir():
        if one.is_dir():
            yield from _of_room(one, f"{path}/{one.name}")
        elif one.name.endswith(".py"):
            yield _Entry(f"{path}/{one.name}", one.read_bytes())
        elif one.name == "system-migrate":
            yield _Entry(f"{path}/{one.name}", one.read_bytes(), 0o755)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sums(files: list[_Entry]) -> bytes:
    """As `sha256sum` writes it: a name with a newline or backslash is escaped, its line marked."""
    lines = []
    for file in sorted(files, key=_by_path):
        name = os.fsencode(file.path)
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        mark = b"\\" if escaped != name else b""
        lines.append(mark + file.sha256.encode("ascii") + b"  " + escaped + b"\n")
    return b"".join(lines)


def _by_path(entry: _Entry) -> bytes:
    return os.fsencode(entry.path)


def _parents(entries: list[_Entry]) -> set[str]:
    parents: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")
        parents.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return parents


def _tar_gz(entries: list[_Entry], count: Count | None = None) -> Iterator[bytes]:
    """A tar.gz of ``entries`` and the directories above them, without owner, time or chance."""
    return compressed(_tar(entries, count or Count(0)))


def _tar(entries: list[_Entry], count: Count) -> Iterator[bytes]:
    for path in sorted(_parents(entries), key=os.fsencode):
        yield from tar_member(_header(path, tarfile.DIRTYPE, 0o755))
    for entry in sorted(entries, key=_by_path):
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
