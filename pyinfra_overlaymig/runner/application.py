"""Applying a bundle: the lock, what is there already, what is refused, and then the transaction, or a sealed layer
again.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import MIGRATIONS, ROLLBACK, STAGING
from pyinfra_overlaymig.runner import (
    confirm,
    files,
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
    if store.is_applied(id):
        return _forward(id, seconds)
    preflight.check(bundle)
    stage = f"{STAGING}/{id}"
    files.drop(stage)
    os.rename(bundle.directory, stage)
    confirm.ask(stage, seconds)
    return worker.run(f"{stage}/log", lambda: transaction.run(id, bundle.plan, bundle.limits))


def _is_applied(bundle: Bundle) -> bool:
    """Whether just this is applied and part of the current generation; leaves with 3 when another version of it was
    applied, ever.
    """
    id = bundle.plan.id
    record = store.record(id)
    if record is None or not store.is_applied(id):
        return False
    if record.digest == seal.digest(bundle.plan):
        return store.has(id)
    for old, new, name in (("install_script.sh", "install.sh", ""), ("manifest", "plan", " plan")):
        _show_difference(
            f"{MIGRATIONS}/{id}/{old}", f"{bundle.directory}/{new}", f"{id} (applied{name})", f"{id} (new{name})"
        )
    raise refused(f"{id} was edited after it was applied", "undo the edit, and put the change into a new migration")


def _show_difference(old: str, new: str, was: str, now: str) -> None:
    import difflib

    before, after = (files.read(path).splitlines(keepends=True) for path in (old, new))
    for line in difflib.unified_diff(before, after, was, now):
        write(2, line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")


def _forward(id: str, seconds: int | None) -> int:
    """A migration that was applied and rolled back: its layer is put on the stack again, no script runs."""
    record = store.record(id)
    if record is None or record.below != seal.below():
        raise refused(
            f"the layer of {id} was made over another stack than the current one",
            "system-migrate rollback to a generation that has it, or put the change into a new migration",
        )
    say(f"{id} was applied before: its layer is used again")
    stack = (*store.stack(), id)
    snapshots.check_room(stack)
    package_manager.await_done()
    rollback.begin()
    confirm.ask(ROLLBACK, seconds)
    return worker.run(f"{ROLLBACK}/log", lambda: rollback.run(stack))
