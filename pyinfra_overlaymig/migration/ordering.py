"""The order in which migrations and services go, and the sets that cannot; pure, knows no machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from pyinfra_overlaymig.errors import InvalidOrder
from pyinfra_overlaymig.format.ids import label
from pyinfra_overlaymig.migration.document import closest
from pyinfra_overlaymig.migration.model import Migration, Service


def order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """All of ``migrations`` in the order they are applied: by id, which no dependency may break."""
    known = {migration.id: migration for migration in migrations}
    _check_dependencies(known)
    _check_cycles(known)
    _check_ids(known)
    for id in sorted(known):
        _check_alone(known[id], known)
    return tuple(known[id] for id in sorted(known))


def with_dependencies(ids: Iterable[str], migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """The migrations named by ``ids`` and all they depend on, in order, without conflict."""
    known = {migration.id: migration for migration in order(migrations)}
    wanted = list(ids)
    for id in wanted:
        if id not in known:
            raise InvalidOrder(f"there is no migration {id}", hint=closest(id, known, label))
    chosen = closure(wanted, known)
    _check_together(chosen, {migration.id for migration in chosen})
    return chosen


def supervised(migrations: Iterable[Migration]) -> dict[str, tuple[Migration, Service]]:
    """The services of a stack by name, each with the topmost migration that defines it."""
    ordered = sorted(migrations, key=lambda migration: migration.id)
    return {service.name: (migration, service) for migration in ordered for service in migration.services}


def start_order(migrations: Iterable[Migration]) -> tuple[tuple[str, ...], ...]:
    """The services of a stack in the order they start; those of one step do not need each other."""
    return tuple(_steps(_needs(supervised(migrations))))


def closure(ids: Iterable[str], known: Mapping[str, Migration]) -> tuple[Migration, ...]:
    """Those of ``ids`` and all they depend on, in order; each of them is in ``known``."""
    found: set[str] = set()
    todo = list(ids)
    while todo:
        id = todo.pop()
        if id not in found:
            found.add(id)
            todo.extend(known[id].depends)
    return tuple(known[id] for id in sorted(found))


def _needs(services: Mapping[str, tuple[Migration, Service]]) -> dict[str, list[str]]:
    """What each service waits for; one that is not there is another check's business."""
    return {
        name: sorted(services.keys() & set(service.needs)) for name, (_, service) in sorted(services.items())
    }  # fmt: skip


def _steps(graph: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    while sorter:
        ready = sorter.get_ready()
        yield tuple(sorted(ready))
        sorter.done(*ready)


def _circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The names around a circle, the first one again at the end, each before what it waits for; empty without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in reversed(error.args[1])]
    return []


def _wrong(migration: Migration, key: str, message: str, hint: str) -> InvalidOrder:
    """The error about what ``key`` of ``Migration.lines`` stands for."""
    line = migration.lines.get(key)
    return InvalidOrder(message, hint=hint, file=migration.folder / "migration.yaml", line=line)


def _check_dependencies(known: Mapping[str, Migration]) -> None:
    for migration in known.values():
        for needed in migration.depends:
            if needed not in known:
                raise _wrong(
                    migration,
                    f"depends {needed}",
                    f"{migration.id} depends on {needed}, which is not in the folder",
                    closest(needed, known.keys() - {migration.id}, label),
                )


def _check_cycles(known: Mapping[str, Migration]) -> None:
    circle = _circle({migration.id: sorted(migration.depends) for migration in known.values()})
    if circle:
        raise _wrong(
            known[circle[0]],
            f"depends {circle[1]}",
            f"migrations depend on each other in a circle: {' -> '.join(circle)}",
            "take one of these out of `depends`",
        )


def _check_ids(known: Mapping[str, Migration]) -> None:
    for migration in known.values():
        for needed in migration.depends:
            if needed > migration.id:
                raise _wrong(
                    migration,
                    f"depends {needed}",
                    f"{migration.id} depends on {needed}, which comes after it",
                    "migrations are applied in the order of their ids; give it a later date",
                )


def _check_alone(migration: Migration, known: Mapping[str, Migration]) -> None:
    """Whether a machine can have it at all: with what it depends on, and nothing else."""
    below = closure([migration.id], known)
    _check_needs(migration, supervised(below).keys(), known)
    _check_together(below, {one.id for one in below}, f"{migration.id} brings both")


def _check_needs(migration: Migration, there: Collection[str], known: Mapping[str, Migration]) -> None:
    for service in migration.services:
        for needed in service.needs:
            if needed not in there:
                raise _wrong(
                    migration,
                    f"{service.name} needs {needed}",
                    f"service {service.name} needs {needed}, which neither {migration.id} nor what it depends on has",
                    _where_it_is(needed, migration, there, known),
                )


def _where_it_is(needed: str, migration: Migration, there: Collection[str], known: Mapping[str, Migration]) -> str:
    before = [id for id, other in known.items() if id < migration.id and needed in supervised([other])]
    if before:
        return f"add {max(before)}, which has it, to `depends`"
    return closest(needed, there)


def _check_together(migrations: Collection[Migration], wanted: Collection[str], why: str = "both are wanted") -> None:
    """Whether one machine can have all of ``migrations``, ``wanted`` being their ids and those it has."""
    for migration in migrations:
        for other in migration.conflicts:
            if other in wanted:
                raise _wrong(
                    migration,
                    f"conflicts {other}",
                    f"{migration.id} conflicts with {other}, and {why}",
                    "leave one of them out",
                )
    _check_services(migrations)


def _check_services(migrations: Collection[Migration]) -> None:
    services = supervised(migrations)
    circle = _circle(_needs(services))
    if circle:
        migration, _ = services[circle[0]]
        raise _wrong(
            migration,
            f"{circle[0]} needs {circle[1]}",
            f"services need each other in a circle: {' -> '.join(circle)}",
            "take one of these out of `needs`",
        )
