"""Applies one migration to a machine, as one transaction, and says beforehand what that means."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

from pyinfra import host, logger, state
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.facts import MigrationTrace
from pyinfra_overlaymig.format import exits
from pyinfra_overlaymig.format.paths import PROGRAM, STAGING
from pyinfra_overlaymig.format.status import MigrationRecord, Status
from pyinfra_overlaymig.migration.bundle import packed
from pyinfra_overlaymig.migration.folder import ids_in
from pyinfra_overlaymig.migration.model import Migration
from pyinfra_overlaymig.operations._again import again, in_words
from pyinfra_overlaymig.operations._arguments import confirmation, read_first, truth
from pyinfra_overlaymig.operations._awaiting import awaiting, confirmed
from pyinfra_overlaymig.operations._command import (
    CONFIRM_WITHIN,
    failure,
    no_runner,
    status_unknown,
    transaction,
)
from pyinfra_overlaymig.operations._folder import is_path, migration_at
from pyinfra_overlaymig.operations._foreseen import foresee
from pyinfra_overlaymig.operations._in_words import contents, edit, missing, refusals, remarks, warnings
from pyinfra_overlaymig.operations._run import memory
from pyinfra_overlaymig.operations._upload import Upload

T = TypeVar("T", bound=Callable[..., Any])

_HOW_IT_FAILED = {
    "143": exits.INTERRUPTED,
    "9": "see its log",
    exits.UNCONFIRMED: "no new connection came in time",
    exits.UNHEALTHY: "its services or verify.sh failed",
}
_UNDO = "undo the edit, and put the change into a new migration; or roll it back first"


def _checked_first(applied: T) -> T:
    """With `-y` pyinfra runs an operation only after others changed machines: check it before.

    It runs it then without the deploy file around it, too, so the folder is found here.
    """

    @wraps(applied)
    def checked(migration: Path | str, folder: Path | str | None = None, **arguments: Any) -> Any:
        found = migration_at(migration, folder).folder
        if is_path(migration):
            return applied(migration=found, **arguments)
        return applied(migration=migration, folder=found.parent, **arguments)

    return cast(T, checked)


@read_first(wait=truth, confirm=confirmation)
@_checked_first
@operation()
def migration_applied(
    migration: Path | str,
    folder: Path | str | None = None,
    wait: bool = False,
    confirm: int = CONFIRM_WITHIN,
) -> Generator[StringCommand, None, None]:
    """
    Applies a migration, as one transaction: afterwards it is there and works, or nothing changed.

    + migration: id of a migration in the folder, or the path of a migration
    + folder: folder of migrations, every one of which must be valid; without it: ``migrations``
      beside the deploy file, else ``deploys/migrations`` in the current directory
    + wait: where another run holds a machine, show what it does and wait for it instead of failing
    + confirm: seconds within which a new connection has to reach the machine after the switch, or it
      takes the migration back by itself; 0: it need not

    What it depends on is not applied with it: ``migrations_in`` names that as well.

    What is going to happen is shown before it does, once for all hosts: scripts, files, services and
    state paths; and for each host what it will refuse, with the diff if the migration was edited
    after it was applied. The output of the script appears while it runs. A machine that is cut off
    in the middle ends it by itself, one way or the other; the next run finds the result.

    Fails on a host, with the runner's reason, where the migration is refused (exit 3) or failed and
    was reverted (exit 9). Raises OperationError if the migration itself is invalid.

    **Example:**

    .. code:: python

        migration_applied(
            name="Add PostgreSQL",
            migration="20240206-001_add_postgresql",
        )
    """
    wanted = migration_at(migration, folder)
    status = yield from confirmed(memory().status())
    if not status.known:
        yield status_unknown(host)
        return
    _tell_missing(wanted.folder.parent, status)
    record = status.migration(wanted.id)
    if record and record.digest == wanted.digest and record.active and record.status == "applied":
        host.noop(f"{wanted.id} is applied (generation {record.generation})")
        return
    if state.is_executing and not status.prepared:
        yield failure(*no_runner(host, "migration_applied"))
        return
    if _edited(record, wanted):
        refusal = failure(f"{wanted.id} was edited after it was applied (generation {record.generation})", _UNDO)
        if not memory().shown_already(wanted.id):
            _show_edit(wanted, record)
        yield refusal
        return
    if status.unfit and status.prepared:
        yield failure(*status.unfit)
        return
    if not memory().shown_already(wanted.id):
        _announce(wanted, status, record, wait=wait)
    memory().will_come(wanted.id, wanted.conflicts)
    memory().changes()
    # What a run that was killed left at work is just what is wanted.
    yield _apply(wanted, wait=wait or _under_way(wanted, status), confirm=confirm)


def _announce(wanted: Migration, status: Status, record: MigrationRecord | None, *, wait: bool) -> None:
    """Say what is going to happen here: the whole plan once in a run, and what this machine will refuse."""
    if _under_way(wanted, status):
        if not awaiting(status):
            host.log(f"{wanted.id}: is being applied by another run: that is waited for")
        return
    if record and record.status == "committed":
        host.log(f"{wanted.id}: was interrupted after its commit: it will be completed, or taken back and applied anew")
        return
    for one in status.evidence:
        if one.id == wanted.id:
            host.log(f"{wanted.id}: the last attempt, at {one.failed_at}, was taken back ({_why(one.why)})")
            host.log(f"  its log is on the machine: {STAGING}/{one.id}/log")
    if _announce_again(wanted, status, record):
        return
    _announce_plan(wanted)
    for line in remarks(wanted, status, memory().coming):
        host.log(f"  {line}")
    if not (status.prepared or memory().will_be_prepared):
        foresee(*no_runner(host, "migration_applied"))
    # Who waits is not refused for the lock, and what is missing may be brought before.
    lock, lacking = None if wait else status.lock, () if memory().will_be_prepared else status.missing
    then = replace(status, lock=lock, missing=lacking)
    for refusal in refusals(wanted, then, memory().coming, services=memory().is_as_told):
        foresee(*refusal)


def _announce_plan(wanted: Migration) -> None:
    first = memory().shown_for(wanted.digest)
    for line in [f"{wanted.id}: the same plan as {first}"] if first else contents(wanted):
        host.log(line)
    for warning in () if first else warnings(wanted):
        host.log_styled(warning, fg="yellow", log_func=logger.warning)


def _under_way(wanted: Migration, status: Status) -> bool:
    """Whether another run applies just this at the moment."""
    return status.lock is not None and (status.lock.verb, status.lock.id) == ("apply", wanted.id)


def _announce_again(wanted: Migration, status: Status, record: MigrationRecord | None) -> bool:
    """What becomes of what it was, where it was applied before; whether there is no more to say."""
    found = again(wanted, status, memory().coming, memory().gone)
    if found is None:
        return False
    for line in in_words(wanted.id, found):
        host.log(line)
    if not found.used:
        memory().will_go(found.goes.layers)
    if found.edited and record:
        _show_edit(wanted, record)
    return found.used


def _show_edit(wanted: Migration, record: MigrationRecord) -> None:
    first = memory().shown_for(f"{wanted.digest} {record.digest}")
    if first:
        host.log(f"  the same edit as on {first}")
        return
    trace = host.get_fact(MigrationTrace, id=wanted.id)
    for line in edit(wanted, trace) if trace else ["  (what was applied is not recorded on the machine)"]:
        host.log(line)


def _tell_missing(folder: Path, status: Status) -> None:
    """What is applied here and has no folder any more; once for each host and folder."""
    if memory().shown_already(f"folder {folder}"):
        return
    if lacking := missing(ids_in(folder), status):
        host.log(f"applied here, and not in {folder}: {', '.join(lacking)}")
        host.log("  gone or renamed? they stay applied; what is in another folder is no trouble")


def _why(word: str) -> str:
    """How a failed migration ended, as the runner noted it: a status of its worker, or a word."""
    return _HOW_IT_FAILED.get(word, f"exit {word}" if word.isdigit() else word)


def _edited(record: MigrationRecord | None, wanted: Migration) -> TypeGuard[MigrationRecord]:
    return bool(record and record.active and record.status == "applied" and record.digest != wanted.digest)


def _apply(wanted: Migration, *, wait: bool, confirm: int) -> StringCommand:
    operator = f"{getpass.getuser()}@{socket.gethostname()}"
    who = StringCommand("OVERLAYMIG_WHO=", QuoteString(operator), _separator="")
    options = ["--wait"] * wait + [f"--confirm {confirm}"] * bool(confirm)
    bundle = memory().once(wanted.plan + wanted.limits, lambda: packed(wanted))
    upload = Upload(host, wanted.id, bundle)
    return transaction(who, PROGRAM, "apply", *options, "-", confirm=confirm, _stdin=upload)
