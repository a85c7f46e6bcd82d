"""Told shortly: generations as what they changed, and migrations as a table; a status is to grow with the machine, not
with its past. Where there are few, both are told in full. Apart from the rest of a status, as both sides write it.

    {"n": 7, "stack": [ID…], "instead_of": null, "base": "a16d…"}       in full
    {"n": 7, "parent": 5, "add": [ID…], "drop": 2, "below": 3}          the stack of 5: its lowest 3 stay, 2 above them
                                                                        go, and ID… are in their place
    {"n": 1, "to": 6, "add": [ID, ID, ID, ID, ID, ID]}                  six of them: each adds one to the one before
    {"same": {KEY: VALUE…}, "columns": [KEY…], "rows": [[VALUE…]…]}     migrations; `same`: what all have alike

What is left out: `parent` is the one before in the list, of the first one 0, the base alone; nothing is added; nothing
is dropped; what is dropped is on top; `base` is the parent's; `instead_of` is null.
"""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Final

    Stack = tuple[str, ...]
    Document = dict[str, Any]

_FEW_LAYERS: Final = 600
"""In all generations together, each counted as two more."""
_FEW_MIGRATIONS: Final = 50


class Past(NamedTuple):
    """What a status tells of one generation."""

    n: int
    stack: Stack
    instead_of: int | None = None
    base: str = ""


def tell_generations(generations: Iterable[Past]) -> list[Document]:
    """All of a machine's generations: in full where they are few."""
    found = list(generations)
    if sum(len(one.stack) + 2 for one in found) <= _FEW_LAYERS:
        return [{"n": n, "stack": list(stack), "instead_of": old, "base": base} for n, stack, old, base in found]
    return tell_shortly(found)


def tell_shortly(generations: Iterable[Past]) -> list[Document]:
    """Each generation by what is different from another one before it."""
    last = Past(0, ())
    known = {0: last}
    by_stack: dict[Stack, int] = {(): 0}
    told: list[Document] = []
    for one in sorted(generations):
        if told and _goes_on(told[-1], last, one):
            told[-1]["to"] = one.n
            told[-1]["add"].append(one.stack[-1])
        else:
            parent = known[by_stack.get(one.stack, by_stack.get(one.stack[:-1], last.n))]
            told.append(_told(one, parent, last))
        known[one.n] = last = one
        by_stack[one.stack] = one.n
    return told


def _goes_on(told: Document, last: Past, one: Past) -> bool:
    """Whether ``one`` is to ``last``, which is ``told``, as that is to the one before it."""
    steady = one.n == last.n + 1 and one.instead_of is None and one.base == last.base and one.stack[:-1] == last.stack
    return steady and len(one.stack) > len(last.stack) and ("to" in told or _adds_one(told))


def _adds_one(told: Document) -> bool:
    return len(told.get("add", ())) == 1 and not told.keys() & {"drop", "below", "instead_of"}


def _told(one: Past, parent: Past, last: Past) -> Document:
    told: Document = {"n": one.n}
    if parent.n != last.n:
        told["parent"] = parent.n
    told |= _difference(parent.stack, one.stack)
    if one.instead_of is not None:
        told["instead_of"] = one.instead_of
    if one.base != parent.base:
        told["base"] = one.base
    return told


def _difference(old: Stack, new: Stack) -> Document:
    """What makes ``new`` of ``old``, without what goes without saying."""
    if old == new:
        return {}
    if old == new[: len(old)]:
        return {"add": list(new[len(old) :])}
    shorter = min(len(old), len(new))
    below = next((place for place in range(shorter) if old[place] != new[place]), shorter)
    above = next((place for place in range(shorter - below) if old[-1 - place] != new[-1 - place]), shorter - below)
    found: Document = {}
    if len(new) > below + above:
        found["add"] = list(new[below : len(new) - above])
    if len(old) > below + above:
        found["drop"] = len(old) - below - above
    if above:
        found["below"] = below
    return found


def stack(told: Mapping[str, Any], parent: Stack) -> Stack:
    """The stack of a generation that is told by what is different from ``parent``; FormatError where that cannot be."""
    add, drop = told.get("add", ()), told.get("drop", 0)
    below = told.get("below", len(parent) - drop if isinstance(drop, int) else 0)
    if not (isinstance(add, (list, tuple)) and all(isinstance(id, str) for id in add)):
        raise FormatError(f"a generation adds {add!r}, which is no list of ids")
    if not (isinstance(drop, int) and isinstance(below, int) and drop >= 0 and 0 <= below <= len(parent) - drop):
        raise FormatError(f"a generation drops {drop!r} layers above {below!r} of {len(parent)}")
    return (*parent[:below], *add, *parent[below + drop :])


def read_generations(told: Iterable[Mapping[str, Any]]) -> list[Past]:
    """The generations that ``told`` are, in whatever form, in their order; FormatError where one makes no sense."""
    found = [Past(0, ())]
    known = {0: found[0]}
    for one in told:
        parent = known.get(one.get("parent", found[-1].n))
        if parent is None:
            raise FormatError(f"generation {one['n']} is told by generation {one['parent']}, of which nothing is told")
        for past in _read(one, parent):
            known[past.n] = past
            found.append(past)
    return found[1:]


def _read(one: Mapping[str, Any], parent: Past) -> Iterator[Past]:
    if "stack" in one:
        yield Past(one["n"], tuple(one["stack"]), one.get("instead_of"), one.get("base", ""))
        return
    base = one.get("base", parent.base)
    if "to" not in one:
        yield Past(one["n"], stack(one, parent.stack), one.get("instead_of"), base)
        return
    add = one.get("add", ())
    if one["to"] - one["n"] + 1 != len(add):
        raise FormatError(f"generations {one['n']} to {one['to']} add {len(add)} layers")
    whole = stack({"add": add}, parent.stack)
    for n in range(one["n"], one["to"] + 1):
        yield Past(n, whole[: len(whole) + n - one["to"]], None, base)


def tell_migrations(migrations: list[Document]) -> list[Document] | Document:
    """Migrations, which all have the same keys: a table where they are many."""
    if len(migrations) <= _FEW_MIGRATIONS:
        return migrations
    first = migrations[0]
    same = {key: value for key, value in first.items() if all(one[key] == value for one in migrations)}
    columns = [key for key in first if key not in same]
    return {"same": same, "columns": columns, "rows": [[one[key] for key in columns] for one in migrations]}


def read_migrations(told: object) -> list[Document]:
    """The migrations that ``told`` are, in either form; FormatError where it is neither."""
    if isinstance(told, list):
        return told
    if not isinstance(told, dict):
        raise FormatError(f"migrations are told as {told!r}, which is neither a list nor a table")
    same, columns, rows = told.get("same"), told.get("columns"), told.get("rows")
    if not (isinstance(same, dict) and isinstance(columns, list) and isinstance(rows, list)):
        raise FormatError("migrations are told as a table without `same`, `columns` and `rows`")
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise FormatError("a row of the migrations has not as many values as there are columns")
    return [same | dict(zip(columns, row, strict=True)) for row in rows]
