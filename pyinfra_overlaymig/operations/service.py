"""Starts, stops and restarts a supervised service, and waits until it is so."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, state
from pyinfra.api import OperationError, QuoteString, StringCommand, operation

from pyinfra_overlaymig.manifest import SERVICE_NAME
from pyinfra_overlaymig.operations._command import failure, status_unknown
from pyinfra_overlaymig.operations._status import forget_status, machine_status
from pyinfra_overlaymig.status import ServiceStatus

SCANDIR = "/run/service"
LOGS = "/data/state/var/log"


@operation()
def s6_service(
    service: str, running: bool = True, restarted: bool = False, timeout: int = 60
) -> Generator[StringCommand, None, None]:
    """
    Has a service of a migration run, or not; running means ready, where the service can tell.

    + service: name of the service, as in a migration's ``services``
    + running: whether it should run
    + restarted: whether to restart it if it runs already
    + timeout: seconds to wait for it

    Fails on a host where the service does not exist, or is not as wanted in time: its last output
    is shown.

    **Example:**

    .. code:: python

        s6_service(
            name="Restart PostgreSQL",
            service="postgresql",
            restarted=True,
        )
    """
    if not SERVICE_NAME.fullmatch(service):
        raise OperationError(f"{service!r} is no service name")
    # Something else may have stopped it since the last operation of ours.
    forget_status()
    status = machine_status()
    if not status.known:
        yield status_unknown(host)
        return
    found = status.service(service)
    if found is None and state.is_executing:
        names = ", ".join(one.name for one in status.services) or "none"
        yield failure(f"{host.name} has no service {service}", f"it has: {names}")
        return
    if found and _as_wanted(found, running) and not (running and restarted):
        host.noop(f"service {service} is {'ready' if running else 'down'}")
        return
    forget_status()
    yield _converge(service, _flags(found, running), timeout)


def _as_wanted(found: ServiceStatus, running: bool) -> bool:
    if running:
        return found.up and found.ready and found.wanted_up
    return not found.up and not found.wanted_up


def _flags(found: ServiceStatus | None, running: bool) -> tuple[str, str]:
    """What s6-svc is to do, and to wait for; a service that tells readiness has it upper case."""
    if not running:
        return "-d", "D"
    return ("-r", "r") if found and found.up and found.wanted_up else ("-u", "u")


def _converge(service: str, flags: tuple[str, str], timeout: int) -> StringCommand:
    action, event = flags
    folder = QuoteString(f"{SCANDIR}/{service}")
    return StringCommand(
        StringCommand("event=", event, ";", _separator=""),
        StringCommand("[ ! -f ", folder, "/notification-fd ]", _separator=""),
        f"|| event={event.upper()};",
        f"s6-svc {action} -w$event -T {timeout * 1000}",
        folder,
        "|| { rc=$?; tail -n 20",
        QuoteString(f"{LOGS}/{service}/current"),
        ">&2; exit $rc; }",
    )
