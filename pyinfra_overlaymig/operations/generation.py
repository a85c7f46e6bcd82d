"""Brings a machine to one of its generations, backward or forward."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.format.paths import PROGRAM
from pyinfra_overlaymig.format.refusals import Generations, NoGoal, goal
from pyinfra_overlaymig.operations._arguments import confirmation, read_first, truth
from pyinfra_overlaymig.operations._awaiting import awaiting, confirmed
from pyinfra_overlaymig.operations._command import (
    CONFIRM_WITHIN,
    AwaitedCommand,
    failure,
    no_runner,
    status_unknown,
    transaction,
)
from pyinfra_overlaymig.operations._foreseen import foresee
from pyinfra_overlaymig.operations._in_words import locked
from pyinfra_overlaymig.operations._run import memory


@read_first(restore_state=truth, wait=truth, confirm=confirmation)
@operation()
def generation_active(
    generation: int | str, restore_state: bool = False, wait: bool = False, confirm: int = CONFIRM_WITHIN
) -> Generator[StringCommand, None, None]:
    """
    Brings a machine to the stack of a kept generation, live: no script runs.

    + generation: its number (0 is the base alone), or the id of the migration that is to be on top
    + restore_state: bring state back to the snapshots of the migrations that go (those that say
      ``snapshot: true``); without it, state stays as it is
    + wait: where another run holds a machine, show what it does and wait for it instead of failing
    + confirm: seconds within which a new connection has to reach the machine after the switch, or it
      goes back by itself; 0: it need not

    It becomes a new generation: history only grows. Services follow it. Fails on a host that has no
    such generation, or where its services do not get ready; then everything is as before.

    **Example:**

    .. code:: python

        generation_active(name="Back to before the upgrade", generation="20240206-001_add_postgresql")
    """
    status = yield from confirmed(memory().status())
    if not status.known:
        yield status_unknown(host)
        return
    if not (status.prepared or memory().will_be_prepared):
        yield failure(*no_runner(host, "generation_active"))
        return
    wanted = str(generation)
    stacks = memory().generations()
    stack = goal(wanted, Generations(stacks, stacks.__getitem__, lambda n: n not in status.broken))
    if isinstance(stack, NoGoal):
        yield failure(stack.why, stack.hint)
        return
    now = (*status.stack, *memory().coming)
    if stack == now and status.running == status.generation:
        if awaiting(status):
            yield AwaitedCommand()
        else:
            host.noop(f"generation {status.generation} is just that")
        return
    if status.lock and not status.lock.awaits and not wait:
        foresee(*locked(status.lock))
    memory().will_go_to(stack)
    host.log(f"generation {status.generation} ({_names(now)}) -> {_names(stack)}")
    memory().changes()
    options = ["--wait"] * wait + ["--restore-state"] * restore_state + [f"--confirm {confirm}"] * bool(confirm)
    yield transaction(PROGRAM, "rollback", *options, QuoteString(wanted), confirm=confirm)


def _names(stack: tuple[str, ...]) -> str:
    return ", ".join(stack) or "the base alone"
