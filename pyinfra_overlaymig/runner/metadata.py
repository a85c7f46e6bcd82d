"""metadata.json: the index of all migrations and generations, rendered from their folders; `status` reads it, so that
no record is read which did not change since.

  migrations   what is told of each, in full
  generations  each by what it changed (format/history.py)
  seen         for each of both, a word for the state of its files when they were read; empty where they had changed
               just before, as a later change would have the same time then

What has another word is read again, by whoever reads; only who changes the machine writes.
"""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

from pyinfra_overlaymig.format import FORMAT, FormatError, history
from pyinfra_overlaymig.format.paths import GENERATIONS, METADATA, MIGRATIONS
from pyinfra_overlaymig.runner import files, migrations, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SETTLED_NS = 2_000_000_000
"""A file's times are as coarse as the kernel's ticks, at worst a second, as some file systems keep them."""


class Index(NamedTuple):
    """All that is told of a machine's past. ``seen``: by id, and by a generation's number, the word for its state."""

    migrations: list[dict[str, Any]]
    generations: list[history.Past]
    seen: dict[str, str]


_NOTHING = Index([], [], {})


def write() -> None:
    """Renders it anew."""
    found = read()
    document = {
        "format": FORMAT,
        "migrations": found.migrations,
        "generations": history.tell_shortly(found.generations),
        "seen": found.seen,
    }
    files.write_file(METADATA, json.dumps(document, separators=(",", ":")) + "\n")


def read(current: int | None = None) -> Index:
    """What there is now, where generation ``current`` is; of what the index knows, nothing is read."""
    old = _rendered()
    # Before anything is looked at: what changes from here on has just changed.
    now = time.time_ns()
    seen: dict[str, str] = {}
    told = _migrations(old, frozenset(store.stack(current)), now, seen)
    return Index(told, _generations(old, now, seen), seen)


def _rendered() -> Index:
    """What the file says; nothing where it is not there, or from a runner that told less."""
    try:
        document = json.loads(files.read(METADATA))
        told, seen = document["migrations"], document["seen"]
        if any(tuple(one) != migrations.KEYS for one in told):
            return _NOTHING
        return Index(told, history.read_generations(document["generations"]), dict(seen))
    except (FormatError, ValueError, KeyError, TypeError, AttributeError):
        return _NOTHING


def _migrations(old: Index, stack: frozenset[str], now: int, seen: dict[str, str]) -> list[dict[str, Any]]:
    known = {one["id"]: one for one in old.migrations}
    found = []
    for id in files.names(MIGRATIONS):
        if id.endswith((".json", ".new")):
            continue
        changed, word = migrations.stamp(id)
        one = (known.get(id) if word == old.seen.get(id) else None) or migrations.told(id, stack)
        if one is None:
            continue
        one["active"] = id in stack
        seen[id] = _trusted(word, changed, now)
        found.append(one)
    return found


def _trusted(word: str, changed: int, now: int) -> str:
    """``word``, unless a change that comes now could have the same time. A clock that was set since is no reason."""
    return word if abs(now - changed) > _SETTLED_NS else ""


def _generations(old: Index, now: int, seen: dict[str, str]) -> list[history.Past]:
    known = {one.n: one for one in old.generations}
    found = []
    for n in store.generations():
        try:
            status = os.stat(f"{GENERATIONS}/{n}")
        except FileNotFoundError:
            continue
        key, word = str(n), f"{status.st_ino:x}.{status.st_ctime_ns:x}"
        one = known.get(n) if word == old.seen.get(key) else None
        seen[key] = _trusted(word, status.st_ctime_ns, now)
        found.append(one or _past(n))
    return found


def _past(n: int) -> history.Past:
    one = store.generation(n)
    return history.Past(n, one.layers, one.instead_of, one.base)
