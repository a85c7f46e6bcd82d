"""rollback [--wait] [--restore-state] [--confirm SECONDS] GENERATION|ID: goes to the stack of any kept generation, or
to the one that has ID on top, by a new generation: history only grows. No script runs, no layer is copied. State
stays as it is, unless the snapshots of the layers that go are to be restored.
"""

from __future__ import annotations

from pyinfra_overlaymig.format import refusals
from pyinfra_overlaymig.format.paths import ROLLBACK
from pyinfra_overlaymig.runner import confirm, lock, package_manager, recovery, rollback, snapshots, store, worker
from pyinfra_overlaymig.runner.say import invalid, refused, say
from pyinfra_overlaymig.runner.verbs.apply import options


def main(arguments: list[str]) -> int:
    restore = "--restore-state" in arguments[:-1]
    rest = [one for one in arguments[:-1] if one != "--restore-state"] + arguments[-1:]
    wait, seconds, goal = options(
        rest, "rollback takes a generation or an id", "system-migrate rollback 3; 0 is the base alone"
    )
    store.layout()
    lock.take("rollback", goal, wait=wait)
    recovery.recover(live=True, going_back=True)
    lock.record("rollback", goal)
    stack = _stack(goal)
    if stack == store.stack():
        say(f"generation {store.current()} is just that already")
        return 0
    snapshots.check_room(stack)
    package_manager.await_done()
    rollback.begin()
    if restore:
        snapshots.restore(stack)
    confirm.ask(ROLLBACK, seconds)
    return worker.run(f"{ROLLBACK}/log", lambda: rollback.run(stack))


def _stack(goal: str) -> tuple[str, ...]:
    """The stack to go to; leaves with 3 or 4 when there is none."""
    kept = refusals.Generations(store.generations(), store.stack, lambda n: store.whole(n, aloud=False))
    found = refusals.goal(goal, kept)
    if not isinstance(found, refusals.NoGoal):
        return found
    if found.lost:
        # It says what is missing.
        store.whole(found.lost)
        raise refused(found.why, found.hint)
    raise invalid(found.why, found.hint)
