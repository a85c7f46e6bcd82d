"""The schema of migrations.yaml, which says what holds for a whole folder of migrations; it may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.migration.document import read

SETTINGS: Final = "migrations.yaml"
_MISNAMED = ("migrations.yml", "migration.yaml", "migration.yml")
_KEYS = ("strict_order",)


class Settings(NamedTuple):
    """``strict_order``: a machine refuses what is older than the newest that it has, instead of saying so."""

    strict_order: bool = False


def load_settings(folder: Path) -> Settings:
    """What ``folder`` says of its migrations; InvalidMigration says what is wrong with it."""
    for name in _MISNAMED:
        if (folder / name).exists():
            raise InvalidMigration(
                "does not belong here", hint=f"what holds for all migrations is in {SETTINGS}", file=folder / name
            )
    file = folder / SETTINGS
    if not file.exists() and not file.is_symlink():
        return Settings()
    keys = read(file, "the folder's settings", f"write `{_KEYS[0]}: true` there, or remove it").mapping(_KEYS)
    return Settings(strict_order="strict_order" in keys and keys["strict_order"].boolean())
