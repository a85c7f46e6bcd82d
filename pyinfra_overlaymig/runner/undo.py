"""The undo of a transaction, from wherever it got to: thrown away before the commit, reverted after it."""

from __future__ import annotations

from pyinfra_overlaymig.format import exits
from pyinfra_overlaymig.runner import as_before, confirm, evidence, finish, former, snapshots, store, supervision
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.phases import Phase
from pyinfra_overlaymig.runner.say import attempt, say, warn, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.phases import Transaction


def undo(one: Transaction, why: int) -> tuple[int, str]:
    """Takes it back, from wherever it got to; the exit code, and how the machine is then."""
    words, code = "", exits.BETWEEN if one.phase is Phase.BROKEN else _take_back(one)
    if code == exits.DONE:
        say("everything is there already: no migration was made")
        evidence.discard(one.id)
    elif code == exits.REFUSED:
        evidence.discard(one.id)
    elif code == exits.REVERTED:
        evidence.keep(one.id, _reason(one.phase, why))
        snapshots.sweep()
        # Drift that was adopted stays: a generation of its own.
        words = as_before.words(one.seen._replace(generation=one.before), whole=one.whole)
        warn(f"{one.id} failed; {words}. Its log is {one.directory}/log")
        write(2, "  hint: correct the migration and run it again\n")
    else:
        warn(f"{one.id} failed, and so did its revert. Run: system-migrate recover")
    return code, words


def _reason(phase: Phase, why: int) -> int | str:
    """What the next run is told: of what was switched to already, a number says nothing."""
    if phase is not Phase.FINISH or why != finish.UNHEALTHY:
        return why
    return exits.UNCONFIRMED if confirm.expired() else exits.UNHEALTHY


def _revert(one: Transaction) -> None:
    one.whole = finish.revert(one.id, one.before, live=True)


def _take_back(one: Transaction) -> int:
    if one.phase is Phase.FINISH or (one.phase is Phase.COMMIT and store.has(one.id)):
        # The rename decides: was it reached, the migration is current and has to be taken back.
        warn(f"reverting to generation {one.before}")
        return 9 if attempt(lambda: _revert(one)) else 20
    # On a full disk it may not even be concluded, and services stand still meanwhile.
    attempt(lambda: audit.trace(one.directory, one.session))
    if one.phase is Phase.COMMIT and not attempt(lambda: former.bring_back(one.id)):
        return 20
    evidence.shrink(one.id)
    supervision.resume(one.directory)
    return {Phase.REFUSED: 3, Phase.NOTHING: 0}.get(one.phase, 9)
