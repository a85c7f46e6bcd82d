"""Reads migration folders and refuses what cannot be applied; it must not look at any machine."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format import rules
from pyinfra_overlaymig.format.ids import ID_EXAMPLE, label, valid_id
from pyinfra_overlaymig.format.paths import SHARED, is_below
from pyinfra_overlaymig.format.plan import SCRIPTS
from pyinfra_overlaymig.migration.document import closest
from pyinfra_overlaymig.migration.manifest import Manifest, load_manifest
from pyinfra_overlaymig.migration.model import Link, Member, Migration

_PARTS = ("migration.yaml", *SCRIPTS, "files")
_NOTES = "README.md"


def load(path: Path | str) -> Migration:
    """The migration in the folder ``path``; InvalidMigration says what is wrong with it."""
    folder = Path(path)
    if not folder.is_dir():
        raise InvalidMigration("there is no such migration", hint=_nearby(folder), file=folder)
    if not valid_id(folder.name):
        raise InvalidMigration(
            f"{folder.name!r} is no migration id",
            hint=f"name the folder by date, number and label, like {ID_EXAMPLE}",
            file=folder,
        )
    _check_parts(folder)
    manifest = load_manifest(folder / "migration.yaml", folder.name)
    members, links = _contents(folder)
    _check_state(folder, manifest, members)
    return Migration(
        id=folder.name,
        folder=folder,
        description=manifest.description,
        depends=manifest.depends,
        conflicts=manifest.conflicts,
        state=manifest.state,
        state_links=manifest.state_links,
        stop=manifest.stop,
        snapshot=manifest.snapshot,
        drift=manifest.drift,
        audit=manifest.audit,
        timeout=manifest.timeout,
        verify_timeout=manifest.verify_timeout,
        verify_retries=manifest.verify_retries,
        services=manifest.services,
        members=members,
        links=links,
        lines=manifest.lines,
    )


def load_all(folder: Path | str) -> tuple[Migration, ...]:
    """Every migration in ``folder``, sorted by id; anything there that is none is refused."""
    top = Path(folder)
    if not top.is_dir():
        raise InvalidMigration("there is no such folder of migrations", hint="check the path", file=top)
    entries = sorted(entry for entry in top.iterdir() if not _ignored(entry.name))
    migrations = tuple(load(entry) for entry in entries)
    numbers: dict[str, str] = {}
    for migration in migrations:
        number = migration.id.partition("_")[0]
        if number in numbers:
            raise InvalidMigration(
                f"{migration.id} and {numbers[number]} have the same date and number",
                hint="give the newer one the next free number",
                file=migration.folder,
            )
        numbers[number] = migration.id
    return migrations


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.endswith("~") or name == _NOTES


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either; check the path"
    return closest(path.name, [entry.name for entry in path.parent.iterdir() if not _ignored(entry.name)], label)


def _check_parts(folder: Path) -> None:
    present = {entry.name for entry in folder.iterdir() if not _ignored(entry.name)}
    for name in sorted(present.difference(_PARTS)):
        raise InvalidMigration("does not belong into a migration", hint=closest(name, _PARTS), file=folder / name)
    for name in ("migration.yaml", "install.sh"):
        if name not in present:
            raise InvalidMigration("is missing", hint="every migration has one", file=folder / name)
    for name in present.difference({"files"}):
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise InvalidMigration("must be a regular file", hint="copy it here", file=folder / name)
    if "files" in present and not stat.S_ISDIR((folder / "files").lstat().st_mode):
        raise InvalidMigration("must be a directory", hint="lay it out as /", file=folder / "files")


def _check_state(folder: Path, manifest: Manifest, members: tuple[Member, ...]) -> None:
    """State paths are directories; links among the files are followed on the machine."""
    for path in manifest.state:
        for member in members:
            if is_below(f"files{path}", member.path):
                trouble = f"state path {path!r}: {member.path} is no directory", "name the directory that it lies in"
            elif path in SHARED and is_below(member.path, f"files{path}"):
                trouble = rules.shared_trouble(path, "the migration itself")
            else:
                continue
            raise InvalidMigration(
                trouble[0], hint=trouble[1], file=folder / "migration.yaml", line=manifest.lines.get("state")
            )


def _contents(folder: Path) -> tuple[tuple[Member, ...], tuple[Link, ...]]:
    members = [_script(folder, name) for name in SCRIPTS if (folder / name).exists()]
    links = []
    for entry in _walk(folder / "files"):
        relative = os.fsdecode(entry.relative_to(folder))
        if entry.is_symlink():
            links.append(Link(relative, _target(entry)))
        else:
            executable = bool(entry.stat().st_mode & stat.S_IXUSR)
            members.append(Member(relative, entry, _sha256(entry), executable))
    return tuple(members), tuple(links)


def _target(link: Path) -> str:
    return os.readlink(link)  # noqa: PTH115 - Path.readlink() would tidy the text up


def _script(folder: Path, name: str) -> Member:
    """A script is always executable: whether git kept the bit must not change the digest."""
    file = folder / name
    if b"\r\n" in file.read_bytes():
        raise InvalidMigration(
            "has DOS line ends, which sh takes for part of the words",
            hint=f"run `sed -i 's/\\r$//' {name}`",
            file=file,
        )
    return Member(name, file, _sha256(file), executable=True)


def _walk(top: Path) -> Iterator[Path]:
    """Files and links under ``top``, sorted by name; other kinds of file are refused."""
    if not top.exists():
        return
    for entry in sorted(top.iterdir()):
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            if not any(entry.iterdir()):
                raise InvalidMigration(
                    "is an empty directory, which git does not keep",
                    hint="make it in install.sh, with its owner and mode",
                    file=entry,
                )
            yield from _walk(entry)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield entry
        else:
            raise InvalidMigration(
                "is neither a file nor a directory nor a link",
                hint="make devices, sockets and fifos in install.sh",
                file=entry,
            )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
