"""Migration folders as operations see them: read once, with our errors as pyinfra's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pyinfra.api import OperationError

from pyinfra_overlaymig.errors import InvalidMigration, OverlaymigError
from pyinfra_overlaymig.migration.folder import load, load_all
from pyinfra_overlaymig.migration.model import Migration
from pyinfra_overlaymig.migration.ordering import order, with_dependencies

_BESIDE_DEPLOY = "migrations"
_FROM_TOP = "deploys/migrations"


def migrations_in(folder: Path | str | None = None, *ids: str) -> tuple[Migration, ...]:
    """
    The migrations of a folder, in the order they are applied: those named and all they depend on.

    + folder: folder of migrations; a relative one is sought beside the deploy file, then in the
      current directory. Without it: ``migrations`` beside the deploy file, else ``deploys/migrations``
    + ids: which of them; all if none is named

    Raises OperationError if one of the folder is invalid, before any machine is touched.

    **Example:**

    .. code:: python

        for migration in migrations_in(Path(__file__).parent / "migrations", "20240206-001_add_postgresql"):
            migration_applied(name=f"Apply {migration.id}", migration=migration.folder)
    """
    try:
        known = _all(_first_there(list(_places(folder)), "folder of migrations"))
        return with_dependencies(ids or _ids(known), known)
    except OverlaymigError as error:
        raise _translated(error) from error


def migration_at(migration: Path | str, folder: Path | str | None = None) -> Migration:
    """The migration that is a path, or an id in ``folder``; both are sought as in ``migrations_in``."""
    if not is_path(migration):
        return next(one for one in migrations_in(folder, str(migration)) if one.id == migration)
    places = list(_places(migration))
    try:
        return _one(next((place for place in places if place.is_dir()), places[0]))
    except OverlaymigError as error:
        raise _translated(error) from error


def is_path(migration: Path | str) -> bool:
    """Whether ``migration`` is a path and no id."""
    return isinstance(migration, Path) or "/" in migration


def _places(folder: Path | str | None) -> Iterator[Path]:
    """Where ``folder`` may be; a deploy has to work from any directory."""
    beside = _deploy_directory()
    if beside:
        yield (beside / (folder or _BESIDE_DEPLOY)).resolve()
    yield Path(folder or _FROM_TOP).resolve()


def _deploy_directory() -> Path | None:
    """Of the file that calls this package; None if that is pyinfra itself, from its command line."""
    frame = inspect.currentframe()
    while frame and _package(frame.f_globals) == "pyinfra_overlaymig":
        frame = frame.f_back
    if frame is None or _package(frame.f_globals) in ("pyinfra", "pyinfra_cli"):
        return None
    file = Path(frame.f_code.co_filename)
    return file.resolve().parent if file.is_file() else None


def _package(module: dict[str, object]) -> str:
    # A deploy file has no name: pyinfra runs its text.
    return str(module.get("__name__", "")).partition(".")[0]


def _first_there(places: list[Path], what: str) -> Path:
    for place in places:
        if place.is_dir():
            return place
    tried = " nor ".join(str(place) for place in dict.fromkeys(places))
    raise InvalidMigration(f"there is no {what}: not {tried}", hint="say where it is with folder=…")


def _ids(migrations: tuple[Migration, ...]) -> list[str]:
    return [one.id for one in migrations]


@cache
def _all(folder: Path) -> tuple[Migration, ...]:
    return order(load_all(folder))


@cache
def _one(path: Path) -> Migration:
    return load(path)


def _translated(error: OverlaymigError) -> OperationError:
    return OperationError(f"{error}\n    hint: {error.hint}")
