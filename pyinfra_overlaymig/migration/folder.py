"""Reads migration folders and refuses what cannot be applied; it must not look at any machine."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyinfra_overlaymig.errors import InvalidMigration, unreadable
from pyinfra_overlaymig.format.ids import ID_EXAMPLE, label, why_no_id
from pyinfra_overlaymig.format.plan import SCRIPTS
from pyinfra_overlaymig.migration import advice, checks, interpreters
from pyinfra_overlaymig.migration.checkout import Checkout, checkout, is_foreign
from pyinfra_overlaymig.migration.document import closest
from pyinfra_overlaymig.migration.manifest import load_manifest
from pyinfra_overlaymig.migration.model import FILES, Link, Member, Migration
from pyinfra_overlaymig.migration.settings import load_settings

_PARTS = ("migration.yaml", *SCRIPTS, FILES)
_NOTES = (".md", ".rst", ".txt", "README", "CHANGELOG", "LICENSE")
_DATED = re.compile("[0-9]{6}")
_NAMED = 3
_BEGINNING = 1 << 16
"""Bytes of a file that tell what it is."""


def load(path: Path | str) -> Migration:
    """The migration in the folder ``path``; InvalidMigration says what is wrong with it."""
    folder = Path(path)
    if not folder.is_dir():
        raise InvalidMigration("there is no such migration", hint=_nearby(folder), file=folder)
    if why := why_no_id(folder.name):
        raise InvalidMigration(
            f"{folder.name!r} is no migration id: {why}",
            hint=f"name the folder by date, number and label, like {ID_EXAMPLE}",
            file=folder,
        )
    try:
        return _load(folder)
    except OSError as error:
        raise unreadable(Path(error.filename or folder), error) from error


def _load(folder: Path) -> Migration:
    _check_parts(folder)
    manifest = load_manifest(folder / "migration.yaml", folder.name)
    git = checkout(folder, FILES) if (folder / FILES).exists() else Checkout()
    entries = list(_walk(folder, folder / FILES, git))
    links = tuple(link for entry in entries if (link := _link(folder, entry, git)))
    linked = {link.path for link in links}
    paths = [_relative(folder, entry) for entry in entries]
    checks.check_places(folder, paths)
    checks.check_modes(folder, manifest, paths, linked)
    files = [_member(folder, one, git, manifest.modes) for one in entries if _relative(folder, one) not in linked]
    scripts = [_script(folder, name) for name in SCRIPTS if (folder / name).exists()]
    checks.check_state(folder, manifest, files)
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
        members=(*scripts, *files),
        links=links,
        lines=manifest.lines,
        warnings=tuple(_warnings(scripts, files, git)),
        strict_order=load_settings(folder.parent).strict_order,
    )


def load_all(folder: Path | str) -> tuple[Migration, ...]:
    """Every migration in ``folder``, sorted by id; a folder there that is none is refused."""
    top = Path(folder)
    if not top.is_dir():
        raise InvalidMigration("there is no such folder of migrations", hint="check the path", file=top)
    load_settings(top)
    try:
        entries = _entries(top)
    except OSError as error:
        raise unreadable(top, error) from error
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


def _entries(top: Path) -> list[Path]:
    """What is meant to be a migration: of files, those whose names begin as ids do."""
    found = sorted(entry for entry in top.iterdir() if not _ignored(entry.name))
    return [entry for entry in found if entry.is_dir() or _DATED.match(entry.name)]


def ids_in(folder: Path) -> frozenset[str]:
    """The ids that migrations in ``folder`` have, whether right or wrong."""
    return frozenset(entry.name for entry in _entries(folder)) if folder.is_dir() else frozenset()


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.endswith(_NOTES) or is_foreign(name)


def _nearby(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"it is a link to {path.readlink()}, where nothing is"
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


def _relative(folder: Path, entry: Path) -> str:
    return os.fsdecode(entry.relative_to(folder))


def _link(folder: Path, entry: Path, git: Checkout) -> Link | None:
    """Where the file system has no links, git makes files of them that hold their targets."""
    relative = _relative(folder, entry)
    if entry.is_symlink():
        return Link(relative, os.readlink(entry))  # noqa: PTH115 - Path.readlink() would tidy the text up
    return Link(relative, os.fsdecode(entry.read_bytes())) if git.is_link(relative) else None


def _member(folder: Path, entry: Path, git: Checkout, modes: Mapping[str, int]) -> Member:
    relative = _relative(folder, entry)
    executable = git.executable(relative)
    if executable is None:
        executable = _is_executable(entry)
    mode = modes.get(relative.removeprefix(f"{FILES}/"), 0o755 if executable else 0o644)
    return Member(relative, entry, _sha256(entry), mode)


def _is_executable(file: Path) -> bool:
    return bool(file.stat().st_mode & stat.S_IXUSR)


def _script(folder: Path, name: str) -> Member:
    """A script is always executable: whether git kept the bit must not change the digest."""
    file = folder / name
    interpreters.check(file, file.read_bytes())
    return Member(name, file, _sha256(file), 0o755)


def _warnings(scripts: list[Member], files: list[Member], git: Checkout) -> Iterator[str]:
    ignored = [path for path in sorted(git.ignored) if not any(map(is_foreign, path.split("/")))]
    if ignored:
        names = ", ".join(path.removeprefix(FILES) for path in ignored[:_NAMED]) + ", …" * (len(ignored) > _NAMED)
        yield f"left out, as git ignores it: {names} (`git add -f` brings it)"
    for script in scripts:
        yield from advice.of_script(script.path, script.source.read_bytes())
    for file in files:
        path = file.path.removeprefix(FILES)
        with file.source.open("rb") as stream:
            yield from advice.of_file(path, file.mode, stream.read(_BEGINNING))
        here = _is_executable(file.source)
        if git.executable(file.path) not in (None, here) and file.mode in (0o644, 0o755) and git.knows_modes():
            words = ("is", "not") if here else ("is not", "so")
            yield f"{path} {words[0]} executable here and {words[1]} in git, which counts: git add {file.path}"


def _walk(folder: Path, top: Path, git: Checkout) -> Iterator[Path]:
    """Files and links under ``top`` that are the author's, sorted by name; other kinds of file are refused."""
    if not top.exists():
        return
    for entry in sorted(top.iterdir()):
        if is_foreign(entry.name) or git.ignores(_relative(folder, entry)):
            continue
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            if not any(entry.iterdir()):
                raise InvalidMigration(
                    "is an empty directory, which git does not keep",
                    hint="make it in install.sh, with its owner and mode",
                    file=entry,
                )
            yield from _walk(folder, entry, git)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            yield entry
        else:
            raise InvalidMigration(
                "is neither a file nor a directory nor a link",
                hint="make devices, sockets and fifos in install.sh",
                file=entry,
            )


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(file, error) from error
