"""Applying a bundle: the lock, what is there already, what is refused, and then the transaction, or a sealed layer
again.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import MIGRATIONS, ROLLBACK, STAGING
from pyinfra_overlaymig.runner import (
    confirm,
    files,
    former,
    lock,
    package_manager,
    preflight,
    recovery,
    rollback,
    seal,
    snapshots,
    store,
    transaction,
    worker,
)
from pyinfra_overlaymig.runner.say import refused, say, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.bundle import Bundle


def apply(bundle: Bundle, seconds: int | None, *, wait: bool = False) -> int:
    """Takes the lock, refuses what must be refused, and runs the transaction; its exit code."""
    id = bundle.plan.id
    lock.take("apply", id, wait=wait)
    recovery.recover(live=True)
    lock.record("apply", id)
    if _is_applied(bundle):
        say(f"{id} is applied already")
        return 0
    again = store.is_applied(id)
    if again and _is_kept(bundle):
        return _forward(id, seconds)
    preflight.check(bundle)
    if again:
        _note_former(bundle)
    stage = f"{STAGING}/{id}"
    files.drop(stage)
    os.rename(bundle.directory, stage)
    confirm.ask(stage, seconds)
    return worker.run(f"{stage}/log", lambda: transaction.run(id, bundle.plan, bundle.limits))


def _is_applied(bundle: Bundle) -> bool:
    """Whether just this is applied and part of the current generation; leaves with 3 when another edition of it is."""
    id = bundle.plan.id
    record = store.record(id)
    if record is None or not store.is_applied(id) or not store.has(id):
        return False
    if record.digest == seal.digest(bundle.plan):
        return True
    for old, new, name in (("install_script.sh", "install.sh", ""), ("manifest", "plan", " plan")):
        _show_difference(
            f"{MIGRATIONS}/{id}/{old}", f"{bundle.directory}/{new}", f"{id} (applied{name})", f"{id} (new{name})"
        )
    raise refused(
        f"{id} was edited after it was applied",
        "undo the edit, and put the change into a new migration; or roll it back first",
    )


def _is_kept(bundle: Bundle) -> bool:
    """Whether its layer, which was rolled back, is just what it would become here."""
    record = store.record(bundle.plan.id)
    return record is not None and record.digest == seal.digest(bundle.plan) and record.below == seal.below()


def _note_former(bundle: Bundle) -> None:
    """It was rolled back, and is not what it was, or not where it was: it is applied anew, and what it was goes then.

    What forbids that one of these goes, as a pin would, is to be refused here: nothing has been touched yet.
    """
    id, record = bundle.plan.id, store.record(bundle.plan.id)
    edited = record is not None and record.digest != seal.digest(bundle.plan)
    say(f"{id} was applied before, {'and edited since' if edited else 'over another stack'}: it is applied anew")
    found = former.going(id)
    over = [layer for layer in found.layers if layer != id]
    say(
        f"when that is done, its layer goes for good, and generation {', '.join(map(str, found.generations)) or 'none'}"
    )
    if over:
        say(f"with it goes what was applied over it: {', '.join(over)}")
    former.note(bundle.directory, found)


def _show_difference(old: str, new: str, was: str, now: str) -> None:
    import difflib

    before, after = (files.read(path).splitlines(keepends=True) for path in (old, new))
    for line in difflib.unified_diff(before, after, was, now):
        write(2, line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")


def _forward(id: str, seconds: int | None) -> int:
    """A migration that was applied and rolled back: its layer is put on the stack again, no script runs."""
    say(f"{id} was applied before: its layer is used again")
    stack = (*store.stack(), id)
    snapshots.check_room(stack)
    package_manager.await_done()
    rollback.begin()
    confirm.ask(ROLLBACK, seconds)
    return worker.run(f"{ROLLBACK}/log", lambda: rollback.run(stack))
