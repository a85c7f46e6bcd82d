"""Shows the graph of migrations and services, as text, DOT and JSON; pure, and it checks nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pyinfra_overlaymig.migration.model import Migration
from pyinfra_overlaymig.migration.ordering import closure, start_order, supervised

FORMAT: Final = 1
_INDENT = "    "


def text(migrations: Sequence[Migration]) -> Iterator[str]:
    """For reading: every migration in order, what it needs and brings, and the order in which services start."""
    width = max((len(migration.id) for migration in migrations), default=0)
    for migration in migrations:
        yield f"{migration.id:{width}}  {migration.description}"
        for what, ids in (("depends on", migration.depends), ("conflicts with", migration.conflicts)):
            if ids:
                yield f"{_INDENT}{what} {', '.join(sorted(ids))}"
        for service in migration.services:
            needs = f", which needs {', '.join(sorted(service.needs))}" if service.needs else ""
            yield f"{_INDENT}service {service.name}{needs}"
    if not supervised(migrations):
        return
    yield ""
    if _excludes_itself(migrations):
        yield "services start in an order that depends on which of those that conflict are there"
        return
    yield "services start in this order, those of one line together:"
    for number, names in enumerate(start_order(migrations), 1):
        yield f"{_INDENT}{number}. {', '.join(names)}"


def document(migrations: Sequence[Migration]) -> dict[str, Any]:
    """For programs: the same; ``start`` is null where migrations conflict."""
    return {
        "format": FORMAT,
        "migrations": [
            {
                "id": migration.id,
                "description": migration.description,
                "depends": sorted(migration.depends),
                "conflicts": sorted(migration.conflicts),
                "services": [{"name": one.name, "needs": sorted(one.needs)} for one in migration.services],
            }
            for migration in migrations
        ],
        "start": None if _excludes_itself(migrations) else [list(names) for names in start_order(migrations)],
    }


def dot(migrations: Sequence[Migration]) -> str:
    """For graphviz: an arrow leads from what depends to what it depends on; conflicts are dashed."""
    lines = ["digraph migrations {", *(f"{_INDENT}{line};" for line in _dot_lines(migrations)), "}"]
    return "".join(f"{line}\n" for line in lines)


def _dot_lines(migrations: Sequence[Migration]) -> Iterator[str]:
    known = {migration.id: migration for migration in migrations}
    yield 'graph [rankdir=BT, fontname="sans-serif", style=rounded, color=gray]'
    yield 'node [fontname="sans-serif", shape=box]'
    for migration in migrations:
        yield f"subgraph {_quoted(f'cluster {migration.id}')} {{ {'; '.join(_cluster(migration))} }}"
    for migration in migrations:
        below = closure([migration.id], known)
        yield from (f"{_quoted(migration.id)} -> {_quoted(other)}" for other in sorted(migration.depends))
        for other in sorted(known.keys() & set(migration.conflicts)):
            yield f"{_quoted(migration.id)} -> {_quoted(other)} [style=dashed, color=red, constraint=false]"
        for service in migration.services:
            start = _quoted(f"{service.name} {migration.id}")
            for needed in sorted(service.needs):
                owner, _ = supervised(below)[needed]
                yield f"{start} -> {_quoted(f'{needed} {owner.id}')} [color=blue]"


def _cluster(migration: Migration) -> Iterator[str]:
    tooltip = _quoted(migration.description)
    yield f"{_quoted(migration.id)} [shape=plaintext, tooltip={tooltip}]"
    for service in migration.services:
        yield f"{_quoted(f'{service.name} {migration.id}')} [label={_quoted(service.name)}, style=rounded, color=blue]"


def _quoted(value: str) -> str:
    """JSON's quotes are DOT's, but for a backslash, which DOT keeps and would read as an escape of its own."""
    return json.dumps(value.replace("\\", "/"), ensure_ascii=False)


def _excludes_itself(migrations: Iterable[Migration]) -> bool:
    ids = {migration.id for migration in migrations}
    return any(ids.intersection(migration.conflicts) for migration in migrations)
