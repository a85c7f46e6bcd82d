"""What a manifest says of files, and the files themselves, held against each other."""

from __future__ import annotations

from pathlib import Path

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format import rules
from pyinfra_overlaymig.format.paths import NEVER_LAID, SHARED, is_below
from pyinfra_overlaymig.migration.document import closest
from pyinfra_overlaymig.migration.manifest import Manifest
from pyinfra_overlaymig.migration.model import Member

FILES = "files"


def check_state(folder: Path, manifest: Manifest, members: list[Member]) -> None:
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


def check_places(folder: Path, paths: list[str]) -> None:
    """Of ``paths``, relative to the folder, none where files cannot be, or would go with the stage unseen."""
    for path in paths:
        for top in NEVER_LAID:
            if is_below(path.removeprefix(FILES), top):
                raise InvalidMigration(
                    f"nothing of a migration can lie in {top}",
                    hint="what is below a state path begins it: put it at that path, not below /data/state",
                    file=folder / path,
                )


def check_modes(folder: Path, manifest: Manifest, paths: list[str], linked: set[str]) -> None:
    """`modes` names files among ``paths``; those of ``linked`` are links."""
    known = [path.removeprefix(FILES) for path in paths]
    for path in manifest.modes:
        if f"{FILES}/{path}" in linked:
            raise InvalidMigration(
                f"`modes` names /{path}, which is a link: it has none of its own",
                hint="name the file that it leads to, or take it out of `modes`",
                file=folder / "migration.yaml",
                line=manifest.lines.get(f"modes {path}"),
            )
        if f"/{path}" not in known:
            raise InvalidMigration(
                f"`modes` names /{path}, and files/ has no such file",
                hint=closest(f"/{path}", known) if known else "put the file into files/, or take it out of `modes`",
                file=folder / "migration.yaml",
                line=manifest.lines.get(f"modes {path}"),
            )
