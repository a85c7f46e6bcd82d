"""Runs a command on a machine and records who changed what; it must not keep the command from changing it."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import OperationError, QuoteString, StringCommand, operation

from pyinfra_overlaymig.format.ids import capture_name, valid_id
from pyinfra_overlaymig.format.paths import PROGRAM
from pyinfra_overlaymig.operations._command import LiveCommand, failure, no_runner, status_unknown
from pyinfra_overlaymig.operations._run import memory


@operation(is_idempotent=False)
def audit_capture(capture: str, command: str) -> Generator[StringCommand, None, None]:
    """
    Runs a shell command and records what it changes, and which process changes it; no layer is made.

    + capture: what the record is called, ``[a-z0-9_-]``; an earlier one of that name is replaced
    + command: a line of sh; what it changes stays, as drift

    The fact ``AuditCapture`` reads the record, ``system-migrate diff NAME`` shows it. Fails on a host
    where the command fails, or where audit is not to be had: there the command does not run.

    **Example:**

    .. code:: python

        audit_capture(
            name="See what make install does",
            capture="make_install",
            command="make -C /usr/local/src/tool install",
        )
    """
    if not capture_name(capture) or valid_id(capture):
        raise OperationError(f"{capture!r} cannot name a capture: use [a-z0-9_-], and not the form of a migration id")
    status = memory().status()
    if not status.known:
        yield status_unknown(host)
        return
    if not (status.prepared or memory().will_be_prepared):
        yield failure(*no_runner(host, "audit_capture"))
        return
    if status.prepared and status.audit != "on":
        yield failure(
            f"what a command changes cannot be seen on {host.name}: audit is {status.audit or 'unknown'}",
            "install auditd in its base",
        )
        return
    memory().changes()
    yield LiveCommand(PROGRAM, "capture", capture, "-- /bin/sh -c", QuoteString(command))
