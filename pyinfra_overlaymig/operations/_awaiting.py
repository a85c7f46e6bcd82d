"""What a run left that was killed while machines waited for a new connection: the next run is that connection."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, state
from pyinfra.api import StringCommand

from pyinfra_overlaymig.format.status import LockOwner, Status
from pyinfra_overlaymig.operations._command import AwaitedCommand
from pyinfra_overlaymig.operations._run import memory


def awaiting(status: Status) -> LockOwner | None:
    """Who waits for a new connection to this machine, if anybody does."""
    return status.lock if status.lock and status.lock.awaits == "confirmation" else None


def confirmed(status: Status) -> Generator[StringCommand, None, Status]:
    """Confirms what awaits it, whatever it is: the machine can be reached. The status after that; in the prepare stage
    it is only said.
    """
    holder = awaiting(status)
    if holder is None:
        return status
    if not memory().shown_already(f"confirms {holder.verb} {holder.id} {holder.since}"):
        what = holder.id if holder.verb == "apply" else f"{holder.verb} {holder.id}"
        host.log(f"{what}, by {holder.who} since {holder.since}, awaits a new connection: this run is it, and confirms")
    if not state.is_executing:
        return status
    yield AwaitedCommand()
    memory().changes()
    return memory().status()
