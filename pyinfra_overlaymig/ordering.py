"""The order in which migrations go, and the sets that cannot; pure, knows no machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter

from pyinfra_overlaymig.document import closest
from pyinfra_overlaymig.errors import InvalidOrder
from pyinfra_overlaymig.migration import Migration
from pyinfra_overlaymig.model import label


def order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """All of ``migrations`` in the order they are applied: by id, which no dependency may break."""
    known = {migration.id: migration for migration in migrations}
    _check_dependencies(known)
    _check_cycles(known)
    _check_ids(known)
    return tuple(known[id] for id in sorted(known))


def pending(migrations: Iterable[Migration], applied: Collection[str]) -> tuple[Migration, ...]:
    """Those of ``migrations`` that are not in ``applied``, in order."""
    ordered = order(migrations)
    todo = tuple(migration for migration in ordered if migration.id not in applied)
    _check_conflicts(todo, {*applied, *(migration.id for migration in ordered)})
    return todo


def with_dependencies(ids: Iterable[str], migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """The migrations named by ``ids`` and all they depend on, in order, without conflict."""
    known = {migration.id: migration for migration in order(migrations)}
    wanted: set[str] = set()
    todo = list(ids)
    while todo:
        id = todo.pop()
        if id not in known:
            raise InvalidOrder(f"there is no migration {id}", hint=closest(id, known, label))
        if id not in wanted:
            wanted.add(id)
            todo.extend(known[id].depends)
    chosen = tuple(known[id] for id in sorted(wanted))
    _check_conflicts(chosen, wanted)
    return chosen


def _check_dependencies(known: dict[str, Migration]) -> None:
    for migration in known.values():
        for needed in migration.depends:
            if needed not in known:
                raise InvalidOrder(
                    f"{migration.id} depends on {needed}, which is not in the folder",
                    hint=closest(needed, known.keys() - {migration.id}, label),
                    file=migration.folder / "migration.yaml",
                )


def _check_cycles(known: dict[str, Migration]) -> None:
    graph = {migration.id: sorted(migration.depends) for migration in known.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        chain = [str(id) for id in reversed(error.args[1])]
        raise InvalidOrder(
            f"migrations depend on each other in a circle: {' -> '.join(chain)}",
            hint="take one of these out of `depends`",
            file=known[chain[0]].folder / "migration.yaml",
        ) from None


def _check_ids(known: dict[str, Migration]) -> None:
    for migration in known.values():
        for needed in migration.depends:
            if needed > migration.id:
                raise InvalidOrder(
                    f"{migration.id} depends on {needed}, which comes after it",
                    hint="migrations are applied in the order of their ids; give it a later date",
                    file=migration.folder / "migration.yaml",
                )


def _check_conflicts(migrations: Iterable[Migration], wanted: Collection[str]) -> None:
    for migration in migrations:
        for other in migration.conflicts:
            if other in wanted:
                raise InvalidOrder(
                    f"{migration.id} conflicts with {other}, and both are wanted",
                    hint="leave one of them out",
                    file=migration.folder / "migration.yaml",
                )
