"""Brings a machine to one of its generations, backward or forward."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.format.paths import PROGRAM
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.operations._arguments import read_first, seconds, truth
from pyinfra_overlaymig.operations._awaiting import awaiting, confirmed
from pyinfra_overlaymig.operations._command import (
    CONFIRM_WITHIN,
    AwaitedCommand,
    failure,
    status_unknown,
    transaction,
)
from pyinfra_overlaymig.operations._run import memory


@read_first(restore_state=truth, wait=truth, confirm=seconds)
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
        yield failure(f"{host.name} has no runner", "put machine_prepared before generation_active")
        return
    wanted = str(generation)
    # One that this run makes is not there yet.
    stack = memory().coming if wanted in memory().coming else _stack(status, wanted)
    if stack is None:
        yield failure(
            f"{host.name} has no generation {wanted}",
            "the fact MachineStatus lists its generations and what they hold",
        )
        return
    if stack == status.stack and status.running == status.generation:
        if awaiting(status):
            yield AwaitedCommand()
        else:
            host.noop(f"generation {status.generation} is just that")
        return
    host.log(f"generation {status.generation} ({_names(status.stack)}) -> {_names(stack)}")
    memory().changes()
    options = ["--wait"] * wait + ["--restore-state"] * restore_state + [f"--confirm {confirm}"] * bool(confirm)
    yield transaction(PROGRAM, "rollback", *options, QuoteString(wanted), confirm=confirm)


def _stack(status: Status, wanted: str) -> tuple[str, ...] | None:
    """The stack that ``wanted`` stands for, None if the machine has none such."""
    if wanted == "0":
        return ()
    for one in sorted(status.generations, key=lambda one: -one.n):
        if wanted == str(one.n):
            return one.stack
        if wanted in one.stack:
            return one.stack[: one.stack.index(wanted) + 1]
    return None


def _names(stack: tuple[str, ...]) -> str:
    return ", ".join(stack) or "the base alone"
