"""What becomes of a migration that a machine had and went back from: foretold from its status alone, as the machine
will decide it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from pyinfra_overlaymig.format.generation import Going, going
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.migration.model import Migration


class Again(NamedTuple):
    """``used``: its layer is put on the stack again and no script runs. Else it is applied anew, and then ``goes``
    what it was.
    """

    edited: bool
    used: bool
    goes: Going


def again(wanted: Migration, status: Status, coming: Collection[str], gone: Collection[str]) -> Again | None:
    """None where it is not so. ``coming``: what is applied before it; ``gone``: whose layers will be gone then."""
    record = status.migration(wanted.id)
    if record is None or record.active or record.status != "applied" or wanted.id in gone:
        return None
    stacks = {one.n: one.stack for one in status.generations if not set(gone).intersection(one.stack)}
    edited = record.digest != wanted.digest
    below = next((stack[: stack.index(wanted.id)] for stack in stacks.values() if wanted.id in stack), None)
    now = (*status.stack, *(id for id in coming if id not in status.stack))
    return Again(edited, not edited and below == now, going(wanted.id, stacks))


def in_words(id: str, found: Again) -> Iterator[str]:
    """For reading."""
    if found.used:
        yield f"{id}: was applied before and rolled back: its layer is used again, no script runs"
        return
    why = "edited since" if found.edited else "another stack is below it now"
    yield f"{id}: was applied before and rolled back, and {why}: it is applied anew"
    generations = ", ".join(map(str, found.goes.generations)) or "none"
    yield f"  once that is done, its old layer goes for good, and generation {generations}"
    over = [layer for layer in found.goes.layers if layer != id]
    if over:
        yield f"  with it goes what was applied over it: {', '.join(over)}"
