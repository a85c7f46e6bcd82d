"""What a manifest says of files, and the files themselves, held against each other."""

from __future__ import annotations

from pathlib import Path

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format import rules
from pyinfra_overlaymig.format.paths import DATA, SHARED, is_below
from pyinfra_overlaymig.migration.document import closest
from pyinfra_overlaymig.migration.manifest import Manifest
from pyinfra_overlaymig.migration.model import FILES, Member

_HINTS = {
    DATA: "what is below a state path begins it: put it at that path, not below /data/state",
    "/proc": "what sets it is a service's `prepare`, at each start",
    "/sys": "what sets it is a service's `prepare`, at each start",
}
"""Where a file that a migration brings would be gone with its stage, unseen, or could not be made, and where it is to
go. (In /tmp its script may want one.)"""


def check_state(folder: Path, manifest: Manifest, members: list[Member]) -> None:
    """State paths are directories; links among the files are followed on the machine."""
    for path in manifest.state:
        for member in members:
            if is_below(f"{FILES}{path}", member.path):
                trouble = f"state path {path!r}: {member.path} is no directory", "name the directory that it lies in"
            elif path in SHARED and is_below(member.path, f"{FILES}{path}"):
                trouble = rules.shared_trouble(path, "the migration itself")
            else:
                continue
            raise InvalidMigration(
                trouble[0], hint=trouble[1], file=folder / "migration.yaml", line=manifest.lines.get("state")
            )


def check_places(folder: Path, paths: list[str]) -> None:
    """Of ``paths``, relative to the folder, none where files cannot be, or would go with the stage unseen."""
    for path in paths:
        for top, hint in _HINTS.items():
            if is_below(path.removeprefix(FILES), top):
                raise InvalidMigration(f"nothing of a migration can lie in {top}", hint=hint, file=folder / path)


def check_modes(folder: Path, manifest: Manifest, paths: list[str], linked: set[str]) -> None:
    """`modes` names files among ``paths``; those of ``linked`` are links."""
    known = [path.removeprefix(FILES) for path in paths]
    for path in manifest.modes:
        if f"{FILES}/{path}" in linked:
            trouble = "which is a link: it has none of its own"
            hint = "name the file that it leads to, or take it out of `modes`"
        elif f"/{path}" not in known:
            trouble = "and files/ has no such file"
            hint = closest(f"/{path}", known) if known else "put the file into files/, or take it out of `modes`"
        else:
            continue
        raise InvalidMigration(
            f"`modes` names /{path}, {trouble}",
            hint=hint, file=folder / "migration.yaml", line=manifest.lines.get(f"modes {path}"),
        )  # fmt: skip
