"""Reads migrations from their folders; what they are is the model's business."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pyinfra_overlaymig.document import closest
from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.manifest import load_manifest
from pyinfra_overlaymig.model import ID_EXAMPLE, Link, Member, Migration, Service, label, valid_id
from pyinfra_overlaymig.octal import escape, escape_text, unescape, unescape_text

__all__ = [
    "Link",
    "Member",
    "Migration",
    "Service",
    "escape",
    "escape_text",
    "load",
    "load_all",
    "unescape",
    "unescape_text",
    "valid_id",
]

_SCRIPTS = ("install.sh", "verify.sh")
_KNOWN = ("migration.yaml", "files", *_SCRIPTS)


def load(path: Path) -> Migration:
    """The migration in the folder ``path``; InvalidMigration says what is wrong with it, where, and what to do."""
    folder = path.absolute()
    if not folder.is_dir():
        raise InvalidMigration("there is no such migration", hint=_nearby(folder), file=folder)
    if not valid_id(folder.name):
        raise InvalidMigration(
            f"`{folder.name}` is no id", hint=f"name the folder YYYYMMDD-NNN_label, like {ID_EXAMPLE}", file=folder
        )
    _check_names(folder)
    migration = load_manifest(folder / "migration.yaml", folder.name)
    members = tuple(sorted(_members(folder), key=lambda one: os.fsencode(one.path)))
    links = tuple(sorted(_links(folder), key=lambda one: os.fsencode(one.path)))
    return Migration(**{**vars(migration), "folder": folder, "members": members, "links": links})


def load_all(folder: Path) -> tuple[Migration, ...]:
    """Every migration of ``folder``, by id; one that is wrong, or a number given twice, is refused."""
    if not folder.is_dir():
        raise InvalidMigration("there is no such folder of migrations", hint="check the path", file=folder)
    found = [load(path) for path in sorted(folder.iterdir()) if not _ignored(path.name)]
    numbers: dict[str, str] = {}
    for migration in found:
        number = migration.id.partition("_")[0]
        if number in numbers:
            raise InvalidMigration(
                f"{migration.id} has the number of {numbers[number]}",
                hint="give one of them another number",
                file=migration.folder,
            )
        numbers[number] = migration.id
    return tuple(found)


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return "check the path"
    return closest(path.name, [entry.name for entry in path.parent.iterdir() if not _ignored(entry.name)], label)


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.endswith("~") or name == "README.md"


def _check_names(folder: Path) -> None:
    for entry in sorted(folder.iterdir()):
        if not _ignored(entry.name) and entry.name not in _KNOWN:
            raise InvalidMigration(
                "is no part of a migration", hint=f"put it into files/; {closest(entry.name, _KNOWN)}", file=entry
            )
    if not (folder / "install.sh").is_file():
        raise InvalidMigration("has no install.sh", hint="write what it does into install.sh", file=folder)


def _members(folder: Path) -> Iterator[Member]:
    for name in _SCRIPTS:
        script = folder / name
        if script.is_file():
            if b"\r\n" in script.read_bytes():
                raise InvalidMigration("has DOS line ends", hint="convert it: sed -i 's/\\r$//'", file=script)
            # Always a program: whether git or a mail kept its x bit says nothing about it.
            yield _member(folder, script, executable=True)
    for path in _below(folder / "files"):
        if not path.is_symlink():
            yield _member(folder, path, executable=bool(path.stat().st_mode & stat.S_IXUSR))


def _links(folder: Path) -> Iterator[Link]:
    for path in _below(folder / "files"):
        if path.is_symlink():
            yield Link(str(path.relative_to(folder)), str(path.readlink()))


def _below(top: Path) -> Iterator[Path]:
    """Files and links below ``top``; what git cannot keep is refused, so that a clone is the same migration."""
    if not top.is_dir():
        return
    for path in sorted(top.iterdir()):
        if path.is_symlink() or path.is_file():
            yield path
        elif not path.is_dir():
            raise InvalidMigration("is neither file, link nor directory", hint="make it in install.sh", file=path)
        elif not any(path.iterdir()):
            raise InvalidMigration(
                "is an empty directory, which git does not keep", hint="make it in install.sh", file=path
            )
        else:
            yield from _below(path)


def _member(folder: Path, path: Path, *, executable: bool) -> Member:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Member(str(path.relative_to(folder)), path, digest, executable)
