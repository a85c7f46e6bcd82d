"""Going to a stack of layers that are sealed already, backward or forward: no script runs, no layer is copied.

rollback/journal    `from` and `to`, generations. It is committed once `to` is current; `from` is gone back to when the
                    services of `to` do not get ready. Without this file, what else is there means nothing
rollback/services   those that have to stand still while state is replaced
rollback/layers     those that come or go
rollback/before     the stack that is left, rollback/stack the one that is gone to
rollback/state/… publishing paused   as state.py describes a journal
"""

from __future__ import annotations

import os
import signal
from enum import Enum, auto
from typing import NamedTuple

from pyinfra_overlaymig.format import exits, lines
from pyinfra_overlaymig.format.paths import ROLLBACK, STATE, SYSTEM
from pyinfra_overlaymig.runner import (
    as_before,
    confirm,
    files,
    leftovers,
    linux,
    metadata,
    packages,
    reserve,
    services,
    services_follow,
    snapshots,
    state,
    store,
    supervision,
    switch,
)
from pyinfra_overlaymig.runner.say import Leave, attempt, explain, say, warn

_JOURNAL = f"{ROLLBACK}/journal"
_SERVICES = f"{ROLLBACK}/services"
_NOT_READY = 1


class Facts(NamedTuple):
    """What is on disk of a rollback."""

    there: bool
    journal: bool
    committed: bool
    confirm: bool


class Outcome(NamedTuple):
    """Whether the generation that was gone to is kept; if not, whether the services of the one before are up."""

    kept: bool
    whole: bool


class Fate(Enum):
    """What is done with one that was interrupted."""

    NOTHING = auto()
    DROP = auto()
    TAKE_BACK = auto()
    FINISH = auto()


def fate(facts: Facts) -> Fate:
    """What becomes of a rollback that an interruption left."""
    if not facts.there:
        return Fate.NOTHING
    if not facts.journal:
        return Fate.DROP
    return Fate.FINISH if facts.committed and not facts.confirm else Fate.TAKE_BACK


def begin() -> None:
    """A new, empty journal."""
    state.drop_replaced()
    leftovers.give_up(ROLLBACK)
    files.make_dirs(ROLLBACK, mode=0o700)
    reserve.fill()
    files.mark(_SERVICES)


def run(stack: tuple[str, ...]) -> int:
    """Goes to ``stack``, as a worker; its exit code, which is told to whoever confirms."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    goal = store.newest() + 1
    seen = as_before.look()
    whole, left = True, store.stack()
    try:
        kept, whole = go(stack, goal)
        code = 0 if kept else 9
    except Exception as error:  # noqa: BLE001 - whatever it is, it is taken back, and then told by its code
        if isinstance(error, Leave):
            error.tell()
        else:
            explain(error)
        warn(f"going to generation {goal} failed")
        code = _undo(goal)
    words = ""
    if code == 0:
        say(f"generation {store.current()} is running")
        packages.tell_hidden({*left} ^ {*stack})
    elif code == exits.REVERTED:
        words = as_before.words(seen, whole=whole)
        Leave(exits.REVERTED, f"that generation is not kept; {words}", "the reason is above").tell()
    confirm.tell_outcome(code, words)
    return code


def _undo(goal: int) -> int:
    if not attempt(lambda: back(live=True) if files.there(_JOURNAL) else recover(live=True)):
        return 20
    return 0 if store.current() == goal else 9


def go(stack: tuple[str, ...], to: int) -> Outcome:
    """Makes generation ``to`` with that stack, and it current and running, unless its services do not get ready.

    Between `begin` and this, state to restore can be prepared.
    """
    before = store.current()
    old = store.stack(before)
    files.write_lines(f"{ROLLBACK}/before", old)
    files.write_lines(f"{ROLLBACK}/stack", stack)
    files.write_lines(f"{ROLLBACK}/layers", sorted({*old} ^ {*stack}))
    _take_snapshots(old, stack)
    store.write_generation(to, stack)
    files.write_file(_JOURNAL, f"from {before}\nto {to}\n")
    linux.syncfs(SYSTEM)
    store.set_current(to)
    return complete()


def _take_snapshots(old: tuple[str, ...], stack: tuple[str, ...]) -> None:
    """Of the layers that come; the services that use their state stand still from here on."""
    for layer in sorted({*stack} - {*old}):
        if store.limits(layer).snapshot:
            paths = store.plan(layer).state
            _pause(services.of(paths, old))
            snapshots.take(layer, paths)


def complete() -> Outcome:
    """What follows the commit."""
    if attempt(_finish):
        # It is kept, whatever becomes of this: what is left is done by the next recover.
        if not attempt(_end):
            warn("what is left over of it goes with the next change of the machine")
        return Outcome(kept=True, whole=True)
    warn(f"going back to generation {_said('from')}")
    whole: list[bool] = []
    if not attempt(lambda: whole.append(back(live=True))):
        raise Leave(20, "going back failed as well", "the reason is above; run: system-migrate recover")
    return Outcome(kept=False, whole=whole[0])


def _finish() -> None:
    _pause(files.lines(_SERVICES))
    files.mark(f"{ROLLBACK}/publishing")
    state.publish(ROLLBACK)
    if store.running() != store.current():
        switch.live()
    if not services_follow.follow(ROLLBACK, _layers(), force=True) or not confirm.awaited(ROLLBACK):
        raise Leave(_NOT_READY)
    linux.syncfs(STATE)


def _pause(names: list[str]) -> None:
    """Stops what has to stand still while state is replaced, and what needs it: going back depends on nobody's will."""
    if not supervision.pause(ROLLBACK, services.needing(names), force=True):
        raise Leave(_NOT_READY)


def _brought() -> list[str]:
    """The services of the layers that came or went."""
    return sorted({name for id in _layers() if (record := store.record(id)) for name in record.services})


def _layers() -> tuple[str, ...]:
    return tuple(files.lines(f"{ROLLBACK}/layers"))


def _said(key: str) -> int:
    return int(dict(lines.pairs(files.read(_JOURNAL)))[key])


def back(*, live: bool) -> bool:
    """Takes it back. False, said, when not all services are up as before."""
    reserve.release()
    # What failed may have been in the middle of the switch: which generation runs is known after this.
    switch.settle()
    store.set_current(_said("from"))
    if live:
        # Those of the layers that go as well: what has just been started would still bind its state, into another root.
        attempt(lambda: _pause([*files.lines(_SERVICES), *_brought()]))
    state.take_back(ROLLBACK)
    if live and store.running() != store.current():
        switch.live()
    whole = not live or services_follow.follow(ROLLBACK, _layers(), back=True)
    if not whole:
        warn("services of the generation before do not get ready either")
    linux.syncfs(STATE)
    files.drop(_JOURNAL)
    leftovers.give_up(ROLLBACK)
    metadata.write()
    return whole


def _end() -> None:
    """All of it succeeded."""
    files.drop(_JOURNAL)
    state.keep(ROLLBACK, "rollback")
    leftovers.give_up(ROLLBACK)
    snapshots.sweep()
    metadata.write()


def recover(*, live: bool) -> None:
    """Finishes or takes back a rollback that was interrupted."""
    journal = files.there(_JOURNAL)
    found = Facts(
        there=os.path.isdir(ROLLBACK),
        journal=journal,
        committed=journal and store.current() == _said("to"),
        confirm=confirm.asked(ROLLBACK),
    )
    what = fate(found)
    if what is Fate.DROP:
        if live:
            supervision.resume(ROLLBACK)
        leftovers.give_up(ROLLBACK)
    elif what is Fate.TAKE_BACK:
        warn(f"going to generation {_said('to')} was interrupted: taken back")
        back(live=live)
    elif what is Fate.FINISH and live:
        warn(f"going to generation {_said('to')} was interrupted: finishing it")
        if not complete().kept:
            warn(f"that generation is not kept; generation {store.current()} runs again")
    elif what is Fate.FINISH:
        warn(f"going to generation {_said('to')} was interrupted: it boots")
        files.mark(f"{ROLLBACK}/publishing")
        state.publish(ROLLBACK)
        linux.syncfs(STATE)
        _end()
