"""Recovery: decides from what is on disk alone what an interruption left, and does it. In the base view, under the
lock.
"""

from __future__ import annotations

import os
from enum import Enum, auto
from typing import NamedTuple

from pyinfra_overlaymig.format import exits
from pyinfra_overlaymig.format.ids import valid_id
from pyinfra_overlaymig.format.paths import LAYERS, MIGRATIONS, RESERVE, RUN, STAGING, SYSTEM, UPPER
from pyinfra_overlaymig.runner import (
    confirm,
    data_mounts,
    evidence,
    files,
    finish,
    former,
    leftovers,
    metadata,
    rollback,
    services,
    services_follow,
    snapshots,
    spawn,
    state,
    store,
    supervision,
    switch,
)
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.say import Leave, say, warn

FOLLOW = f"{RUN}/follow"
_SHOWN = 20


class Facts(NamedTuple):
    """What is on disk of one stage. ``former``: the record is that of an edition before, whose place it was to take."""

    failed: bool
    applied: bool
    in_stack: bool
    confirm: bool
    record: bool
    former: bool


class Fate(Enum):
    """What is done with it."""

    KEEP = auto()
    """It is evidence."""
    TIDY = auto()
    """All was done but for taking the stage away."""
    TAKE_BACK = auto()
    """Nobody has confirmed it over a new connection."""
    FINISH = auto()
    """It is past its commit."""
    GO_ON_TAKING_BACK = auto()
    """It was current, and is no more: its record goes last."""
    UNDO = auto()
    """Nothing of it was ever current."""


def fate(facts: Facts) -> Fate:
    """What becomes of a stage that an interruption left."""
    if facts.failed:
        return Fate.KEEP
    if facts.applied and not facts.former:
        return Fate.TIDY
    if facts.in_stack:
        return Fate.TAKE_BACK if facts.confirm else Fate.FINISH
    return Fate.GO_ON_TAKING_BACK if facts.record and not facts.former else Fate.UNDO


def recover(*, live: bool, going_back: bool = False) -> None:
    """Undoes each stage whose migration is not in the current generation, and finishes each that is and is not applied.

    Not ``live``: the current generation is not running yet; then only files are mended. ``going_back``: to one that
    can be assembled, where the current one cannot be.
    """
    data_mounts.follow()
    confirm.forget()
    if not store.whole(store.current()):
        if going_back:
            _sweep(live=live)
            return
        raise Leave(
            20, "the current generation cannot be assembled", f"look at {SYSTEM}/generations and {SYSTEM}/layers"
        )
    _sweep(live=live)
    rollback.recover(live=live)
    recover_stages(live=live)
    _drop_records()
    snapshots.sweep()
    if live:
        _recover_running()


def recover_stages(*, live: bool, own: str = "") -> None:
    """Gives each stage but the caller's ``own`` its fate."""
    for id in files.names(STAGING):
        if valid_id(id) and id != own and os.path.isdir(f"{STAGING}/{id}"):
            _carry_out(fate(_facts(id)), id, live=live)


def _facts(id: str) -> Facts:
    return Facts(
        failed=files.there(f"{STAGING}/{id}/failed"),
        applied=store.is_applied(id),
        in_stack=store.has(id),
        confirm=confirm.asked(f"{STAGING}/{id}"),
        record=os.path.isdir(f"{MIGRATIONS}/{id}"),
        former=former.has_record(id),
    )


def _carry_out(what: Fate, id: str, *, live: bool) -> None:
    if what is Fate.TIDY:
        former.let_go(id)
        metadata.write()
        evidence.discard(id)
    elif what is Fate.TAKE_BACK:
        warn(f"{id} was interrupted before a new connection confirmed it: taken back")
        finish.revert(id, store.before(store.current()), live=live)
        evidence.keep(id, exits.UNCONFIRMED)
    elif what is Fate.FINISH:
        warn(f"{id} was interrupted after its commit: finishing it")
        _finish(id, live=live)
    elif what is Fate.GO_ON_TAKING_BACK:
        warn(f"{id} was being taken back: going on with it")
        finish.revert(id, store.current(), live=live)
        evidence.keep(id, exits.INTERRUPTED)
    elif what is Fate.UNDO:
        warn(f"{id} was interrupted before its commit: undone")
        _undo(id, live=live)


def _undo(id: str, *, live: bool) -> None:
    """A layer that was sealed goes, and what it was stays as evidence."""
    former.bring_back(id)
    evidence.shrink(id)
    if live:
        supervision.resume(f"{STAGING}/{id}")
    evidence.keep(id, exits.INTERRUPTED)


def _finish(id: str, *, live: bool) -> None:
    """Completes it, or reverts it when it turns out bad."""
    journal = f"{STAGING}/{id}"
    if not live:
        files.mark(f"{journal}/publishing")
        state.publish(journal)
        return
    before = store.before(store.current())
    if spawn.finish(spawn.fork(lambda: _finish_aside(id))) == 0:
        return
    for line in files.lines(f"{journal}/log")[-_SHOWN:]:
        say(line)
    finish.revert(id, before, live=True)
    evidence.keep(id, exits.UNHEALTHY)
    warn(f"{id} was reverted")


def _finish_aside(id: str) -> None:
    """In a process of its own, as what it says belongs into the migration's log."""
    log = os.open(f"{STAGING}/{id}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    finish.finish(id)


def _drop_records() -> None:
    """Drops what was never finished and is in no current generation."""
    for id in files.names(MIGRATIONS):
        if os.path.isdir(f"{MIGRATIONS}/{id}") and not store.is_applied(id) and not store.has(id):
            leftovers.give_up(f"{LAYERS}/{id}", f"{MIGRATIONS}/{id}")


def _recover_running() -> None:
    """The current generation runs, and its services do.

    A switch of this that is interrupted leaves `follow`: the generation runs then, and the services are still those
    of the one before.
    """
    switched = store.current() != store.running()
    if not switched and not os.path.isdir(FOLLOW) and not services.missing():
        return
    files.make_dirs(FOLLOW)
    if switched:
        warn(f"generation {store.current()} is current and {store.running()} runs: switching")
        switch.live()
    done = services_follow.follow(FOLLOW, (), force=True)
    # Tried once: one that does not get ready must not be in the way of going back.
    files.drop(FOLLOW)
    if switched and not done:
        raise Leave(20, "its services do not get ready", "the reason is above")


def _sweep(*, live: bool) -> None:
    """A switch that was killed, and leftovers that mean nothing: half-written files, uppers that never ran,
    half-received bundles of processes that are gone. At boot there is nobody who could be receiving one.
    """
    switch.settle()
    switch.sweep()
    # What a revert wants brought back stays until a switch has done it.
    if not os.path.isdir(f"{UPPER}/change/bring"):
        files.drop(f"{UPPER}/change")
    leftovers.give_up(f"{RESERVE}.new", *_half_written())
    audit.sweep()
    for name in files.names(STAGING):
        received = name.startswith(".incoming.") and not (live and spawn.lives(int(name.rpartition(".")[2])))
        if received or name.startswith(".reflink."):
            leftovers.give_up(f"{STAGING}/{name}")


def _half_written() -> list[str]:
    folders = [SYSTEM, *(f"{SYSTEM}/{name}" for name in files.names(SYSTEM))]
    folders += [f"{MIGRATIONS}/{name}" for name in files.names(MIGRATIONS)]
    return [
        f"{one}/{name}" for one in folders if os.path.isdir(one) for name in files.names(one) if name.endswith(".new")
    ]
