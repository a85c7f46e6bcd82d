"""Converges one service under s6: running and ready, stopped, restarted."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.operations._command import failure, status_unknown
from pyinfra_overlaymig.operations._status import forget_status, machine_status
from pyinfra_overlaymig.status import ServiceStatus

_SCANDIR = "/run/service"


@operation()
def s6_service(
    service: str, running: bool = True, restarted: bool = False, timeout: int = 60
) -> Generator[StringCommand, None, None]:
    """
    Brings a supervised service up until it is ready, or down; optionally anew.

    + service: name of the service, as in ``/run/service``
    + running: whether it should be up (and ready, if it tells) or down
    + restarted: restart it even if it is up
    + timeout: seconds to wait for that

    Fails on a host where the service does not exist, or does not get there in time.

    **Example:**

    .. code:: python

        s6_service(name="Restart PostgreSQL", service="postgresql", restarted=True)
    """
    status = machine_status()
    if not status.known:
        yield status_unknown(host)
        return
    found = status.service(service)
    if found is None:
        yield failure(f"{host.name} has no service {service}", f"s6-svstat {_SCANDIR}/* lists those it has")
        return
    if _is_so(found, running) and not (restarted and running):
        host.noop(f"service {service} is {'ready' if running else 'down'}")
        return
    forget_status()
    directory = QuoteString(f"{_SCANDIR}/{service}")
    if not running:
        yield StringCommand("s6-svc", "-wD", "-T", str(timeout * 1000), "-d", directory)
        return
    has_readiness = StringCommand("[ -f ", QuoteString(f"{_SCANDIR}/{service}/notification-fd"), " ]", _separator="")
    flag = "-r" if restarted and found.up else "-u"
    waits = {"-r": ("-wR", "-wr"), "-u": ("-wU", "-wu")}[flag]
    yield StringCommand(
        "if ", has_readiness, "; then w=", waits[0], "; else w=", waits[1], "; fi; s6-svc $w -T ", str(timeout * 1000),
        f" {flag} ", directory, _separator="",
    )  # fmt: skip


def _is_so(found: ServiceStatus, running: bool) -> bool:
    return (found.up and found.ready and found.wanted_up) if running else not (found.up or found.wanted_up)
