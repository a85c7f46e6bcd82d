"""The transaction of one migration, from the unpacked bundle in staging/<id> to the mark `applied`.

prepare, run and capture | commit | finish: what fails before the commit is thrown away, what fails after it is
reverted.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.runner import (
    adopt,
    capture_stage,
    confirm,
    drift,
    files,
    finish,
    linux,
    package_manager,
    packages,
    recovery,
    seal,
    services,
    snapshots,
    spawn,
    stage,
    state,
    store,
    supervision,
    why_failed,
)
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.phases import Phase, Transaction
from pyinfra_overlaymig.runner.say import Leave, attempt, explain, say, warn, write
from pyinfra_overlaymig.runner.undo import undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.format.changes import Change
    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.format.plan import Plan

_INTERRUPTED = 143
_SHOWN = 20


def run(id: str, plan: Plan, limits: Limits) -> int:
    """All of it, as a worker: its exit code is the operator's. Only before the commit can it be interrupted."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    one = Transaction(id, plan, limits)
    try:
        _apply(one)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is undone, and then told by its code
        _ignore()
        code, words = undo(one, _code_of(error))
    else:
        say(f"{id} is applied, generation {store.current()} is running")
        code, words = 0, ""
    confirm.tell_outcome(code, words)
    return code


def _interrupt(*_: object) -> None:
    # Once is enough: what is ended now is waited for.
    _ignore()
    raise Leave(_INTERRUPTED)


def _ignore() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _code_of(error: BaseException) -> int:
    if isinstance(error, Leave):
        error.tell()
        return error.code
    explain(error)
    return 1


def _apply(one: Transaction) -> None:
    state.drop_replaced()
    _pause(one, one.stage.plan.stop)
    if one.limits.snapshot:
        _take_snapshot(one)
    _run(one)
    _await_package_manager(one)
    conflicts = drift.conflicts(one.directory)
    if conflicts:
        _resolve(one, conflicts, one.limits.drift)
    state.plan(one.directory)
    changes = files.read(f"{one.directory}/changes.list").count("\n")
    say(f"sealing {changes} changes")
    one.phase = Phase.COMMIT
    seal.commit(one.stage, _ignore)
    one.phase = Phase.FINISH
    finish.finish(one.id)


def _take_snapshot(one: Transaction) -> None:
    """What uses that state stands still until the end."""
    paths = one.stage.plan.state
    _pause(one, services.of(paths, store.stack(one.before)))
    snapshots.take(one.id, paths)


def _await_package_manager(one: Transaction) -> None:
    """One that was started while the script ran: its lock would not hold after the switch."""
    phase, one.phase = one.phase, Phase.REFUSED
    package_manager.await_done()
    one.phase = phase


def _pause(one: Transaction, names: Iterable[str]) -> None:
    """These stand still until the end, and what needs them."""
    if not supervision.pause(one.directory, services.needing(list(names))):
        raise Leave(9)


def _run(one: Transaction) -> None:
    """The install script in its stage, and the capture of what it changed."""
    stage.prepare(one.stage)
    one.session = audit.open(f"{one.directory}/audit")
    say(f"running the install script of {one.id}")
    code = stage.run(one.stage, one.limits.timeout, one.session)
    # What audit saw of it is asked for its last command where it failed.
    one.session.conclude() if code else one.session.leave()
    if files.there(f"{one.directory}/timeout"):
        raise why_failed.late(one.stage, one.limits.timeout)
    if code:
        raise _failed(one, code)
    # What the commit has to wait for is on its way to the disk meanwhile.
    spawn.fork(lambda: linux.syncfs(one.directory))
    say("capturing what it changed")
    capture_stage.capture(one.stage, one.limits.timeout)
    audit.conclude(one.directory, one.session, one.limits)
    if not os.path.getsize(f"{one.directory}/changes.list") and one.stage.plan.local:
        one.phase = Phase.NOTHING
        raise Leave(3)


def _failed(one: Transaction, code: int) -> Leave:
    if stage.is_refused(one.stage, code):
        one.phase = Phase.REFUSED
    return why_failed.leave(one.stage, code)


def _resolve(one: Transaction, conflicts: tuple[Change, ...], how: str) -> None:
    """Drift is in the way: what the migration wants to be done about it."""
    _name_drift(one.id, conflicts)
    theirs = packages.changed_by_hand()
    every = packages.whole(conflicts, theirs)
    if how != "refuse" and len(every) > len(conflicts):
        say(f"with it goes all that belongs to what was installed or removed by hand: {theirs.who}")
    if how == "discard":
        say("giving it up, as the migration says")
        drift.prepare_drop(one.directory, packages.apart(every, conflicts))
    elif how == "adopt":
        _adopt(one, every)
    else:
        what = "--packages" if len(every) > len(conflicts) else "PATH"
        if what != "PATH":
            warn(f"packages were installed or removed by hand: {theirs.who}")
        up, in_layer = f"system-migrate drift discard {what}", f"drift adopt {what}"
        write(2, f"  hint: to give these changes up: {up}; to keep them in a layer: {in_layer}\n")
        one.phase = Phase.REFUSED
        raise Leave(3)


def _adopt(one: Transaction, conflicts: tuple[Change, ...]) -> None:
    """It becomes a layer of its own, and the script runs once more, over that."""
    if why := adopt.unkeepable(conflicts):
        one.phase = Phase.REFUSED
        raise Leave(3, why, "undo that (chattr -i -a), or stop the program whose socket it is")
    # An interrupt comes to the stage, before and after it.
    _ignore()
    label = one.id.partition("_")[2]
    if not attempt(lambda: adopt.adopt(label, conflicts)):
        warn("the drift was not adopted")
        # It may have got past its own commit: this finishes it or takes it back, and leaves this stage alone.
        if not attempt(lambda: recovery.recover_stages(live=True, own=one.id)):
            one.phase = Phase.BROKEN
        raise Leave(9)
    signal.signal(signal.SIGTERM, _interrupt)
    one.before = store.current()
    say("once more, over the layer that was adopted")
    stage.clear(one.stage)
    _run(one)
    left = drift.conflicts(one.directory)
    if left:
        _resolve(one, left, "refuse")


def _name_drift(id: str, conflicts: tuple[Change, ...]) -> None:
    changes = conflicts
    warn(f"{id} would change what was changed outside of migrations (drift):")
    for change in changes[:_SHOWN]:
        write(2, f"    {change.op} {change.kind} /{change.path}\n")
    if len(changes) > _SHOWN:
        warn(f"    and {len(changes) - _SHOWN} more")
