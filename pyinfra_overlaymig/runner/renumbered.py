"""Processes that run with numbers which were their account's before the last switch: they are nobody's now, or somebody
else's, as files have followed the names.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

from pyinfra_overlaymig.format.paths import LIVE, RUN
from pyinfra_overlaymig.runner import files, owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.processes import Process

_BEFORE = f"{RUN}/accounts"
"""The accounts of the root before, and when it was given up."""
_KINDS = {"Uid:": "u", "Gid:": "g", "Groups:": "g"}


def note() -> None:
    """Before a pivot: the accounts of the root that goes. Where they cannot be read, a switch is no less wanted."""
    with suppress(OSError):
        files.write_file(f"{_BEFORE}.next", owners.text(owners.of(LIVE)))


def settle() -> None:
    """After it."""
    if not files.there(f"{_BEFORE}.next"):
        return
    with suppress(OSError):
        files.write_file(f"{_BEFORE}.since", f"{time.clock_gettime(time.CLOCK_BOOTTIME)}\n")
        os.rename(f"{_BEFORE}.next", _BEFORE)


class Renumbered(NamedTuple):
    """``numbers``: by `u` or `g`, those that were another account's before; ``since``: seconds since the start."""

    numbers: frozenset[tuple[str, int]]
    since: float

    def has(self, process: Process) -> bool:
        """Whether a process runs with one of them, since before."""
        return bool(self.numbers) and process.began < self.since and not self.numbers.isdisjoint(_ids(process.pid))


def since_last_switch() -> Renumbered:
    """Nothing where the accounts cannot be read."""
    try:
        now = owners.of(LIVE)
    except OSError:
        now = {}
    taken = {(kind, number): name for (kind, name), number in now.items()}
    moved = {
        (kind, number)
        for (kind, name), number in owners.read(_BEFORE).items()
        if now and (now.get((kind, name), number) != number or taken.get((kind, number), name) != name)
    }
    return Renumbered(frozenset(moved), float(files.first_line(f"{_BEFORE}.since") or 0))


def _ids(pid: int) -> set[tuple[str, int]]:
    try:
        text = files.read(f"/proc/{pid}/status")
    except ProcessLookupError:
        return set()
    fields = (line.split() for line in text.splitlines())
    return {(_KINDS[key], int(one)) for key, *rest in filter(None, fields) if key in _KINDS for one in rest}
