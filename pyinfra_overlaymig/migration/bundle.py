"""Packs a migration, and the runner itself, as bytes that are the same on every machine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from pyinfra_overlaymig.errors import InvalidMigration, OverlaymigError
from pyinfra_overlaymig.migration.model import Migration
from pyinfra_overlaymig.migration.services import Rendered, render

PACKAGE = "pyinfra_overlaymig"
RUNNER = "runner"
LAUNCHER = f"{PACKAGE}/{RUNNER}/system-migrate"
"""Where the runner's archive has the program."""
_LINE = 24_516
"""Bytes in a line: pyinfra sends each by itself, and this makes a packet of ssh that is just not cut in two."""


@dataclass(frozen=True)
class _Entry:
    path: str
    content: bytes = b""
    mode: int = 0o644
    target: str | None = None


def pack(migration: Migration) -> bytes:
    """``migration`` as the tar.gz that `system-migrate apply -` reads."""
    files = [
        _Entry("plan", migration.plan),
        _Entry("limits", migration.limits),
        *_members(migration),
        *_services(migration),
    ]
    links = [_Entry(link.path, target=link.target) for link in migration.links]
    return _tar_gz([*files, *links, _Entry("sums", _sums(files))])


def archive(files: Iterable[Rendered]) -> bytes:
    """A service directory as a tar.gz."""
    return _tar_gz([_Entry(file.path, file.text.encode("utf-8"), file.mode) for file in files])


def wire(data: bytes) -> list[str]:
    """``data`` as lines of base64, fit for a command's input."""
    return [base64.b64encode(data[at : at + _LINE]).decode("ascii") for at in range(0, len(data), _LINE)]


@cache
def runner_archive() -> tuple[bytes, str]:
    """The runner as a tar.gz, with the digest (hex) that a machine reports once it is there."""
    files = list(_runner_files())
    listing = "".join(f"{_sha256(file.content)}  {file.path}\n" for file in files)
    digest = _sha256(listing.encode("ascii"))
    return _tar_gz([*files, _Entry("digest", f"{digest}\n".encode("ascii"))]), digest


def _members(migration: Migration) -> Iterator[_Entry]:
    for member in migration.members:
        content = member.source.read_bytes()
        if _sha256(content) != member.sha256:
            raise InvalidMigration("changed while it was being packed", hint="run it again", file=member.source)
        yield _Entry(member.path, content, member.mode)


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
        lines.append(mark + _sha256(file.content).encode("ascii") + b"  " + escaped + b"\n")
    return b"".join(lines)


def _by_path(entry: _Entry) -> bytes:
    return os.fsencode(entry.path)


def _parents(entries: list[_Entry]) -> set[str]:
    parents: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")
        parents.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return parents


def _tar_gz(entries: list[_Entry]) -> bytes:
    """A tar.gz of ``entries`` and the directories above them, without owner, time or chance."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", 9, buffer, mtime=0) as stream,
        tarfile.open(
            fileobj=stream,
            mode="w",
            format=tarfile.GNU_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive,
    ):
        for path in sorted(_parents(entries), key=os.fsencode):
            archive.addfile(_header(path, tarfile.DIRTYPE, 0o755))
        for entry in sorted(entries, key=_by_path):
            _add(archive, entry)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, entry: _Entry) -> None:
    if entry.target is not None:
        link = _header(entry.path, tarfile.SYMTYPE, 0o777)
        link.linkname = entry.target
        archive.addfile(link)
        return
    header = _header(entry.path, tarfile.REGTYPE, entry.mode)
    header.size = len(entry.content)
    archive.addfile(header, io.BytesIO(entry.content))


def _header(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type = kind
    header.mode = mode
    header.uname = header.gname = "root"
    return header
