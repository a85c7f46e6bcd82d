"""The order of migrations, from what they depend on; it must read neither files nor machines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from pyinfra_overlaymig.document import closest
from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.migration import Migration
from pyinfra_overlaymig.model import label


def order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """``migrations`` by id, which is the order they are applied in; refused where that cannot be.

    Raises InvalidMigration for a dependency that is missing, in a cycle or later than its dependant.
    """
    known = {one.id: one for one in migrations}
    for migration in known.values():
        _check_depends(migration, known)
    _check_cycles(known)
    for migration in known.values():
        _check_later(migration)
    return tuple(known[id] for id in sorted(known))


def with_dependencies(ids: Iterable[str], migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """The migrations named ``ids`` and all they depend on, in order; two that conflict are refused."""
    known = {one.id: one for one in migrations}
    wanted: set[str] = set()
    left = list(ids)
    while left:
        id = left.pop()
        if id not in known:
            raise InvalidMigration(f"there is no migration {id}", hint=closest(id, known, label))
        if id not in wanted:
            wanted.add(id)
            left += known[id].depends
    chosen = order(known[id] for id in wanted)
    _check_conflicts(chosen)
    return chosen


def pending(migrations: Sequence[Migration], applied: Collection[str]) -> tuple[Migration, ...]:
    """Those of ``migrations`` that are not among the ``applied`` ids, in order."""
    return tuple(one for one in order(migrations) if one.id not in applied)


def _check_depends(migration: Migration, known: dict[str, Migration]) -> None:
    for needed in migration.depends:
        if needed not in known:
            raise InvalidMigration(
                f"{migration.id} depends on {needed}, which is not there",
                hint=closest(needed, known.keys() - {migration.id}, label),
                file=migration.folder,
            )


def _check_cycles(known: dict[str, Migration]) -> None:
    try:
        TopologicalSorter({id: one.depends for id, one in known.items()}).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InvalidMigration(
            f"migrations depend on each other in a circle: {circle}", hint="take one of these dependencies out"
        ) from error


def _check_later(migration: Migration) -> None:
    for needed in migration.depends:
        if needed > migration.id:
            raise InvalidMigration(
                f"{migration.id} depends on {needed}, which comes after it",
                hint="ids are applied in order: give the dependant a later id",
                file=migration.folder,
            )


def _check_conflicts(chosen: Sequence[Migration]) -> None:
    ids = {one.id for one in chosen}
    for migration in chosen:
        for other in migration.conflicts:
            if other in ids:
                raise InvalidMigration(
                    f"{migration.id} conflicts with {other}, and both are wanted",
                    hint="leave one of them out",
                    file=migration.folder,
                )
