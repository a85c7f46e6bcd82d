"""Defines, starts, stops and removes a service that s6 supervises, and waits until it is so."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import cache
from graphlib import CycleError
from importlib import resources

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.facts.service import SOURCEDIR, S6Service, S6Services
from pyinfra_overlaymig.format import readiness
from pyinfra_overlaymig.format.needs import Unfit
from pyinfra_overlaymig.format.paths import SCANDIR, SERVICEDIRS
from pyinfra_overlaymig.migration.bundle import archive
from pyinfra_overlaymig.migration.packing import Packets
from pyinfra_overlaymig.migration.scripts import filled
from pyinfra_overlaymig.operations._arguments import read_first, seconds, truth, truth_or_none, truth_or_text
from pyinfra_overlaymig.operations._command import failure
from pyinfra_overlaymig.operations._run import memory
from pyinfra_overlaymig.operations._service_arguments import Wanted, checked_first, wanted_of
from pyinfra_overlaymig.operations._service_steps import if_it_ran, in_words, steps_for, with_what_needs_it
from pyinfra_overlaymig.operations._upload import Upload

_SCRIPTS = ("service_ready.sh", "service.sh")


@read_first(
    running=truth_or_none, restarted=truth, reloaded=truth_or_text, enabled=truth_or_none, present=truth,
    log=truth_or_text, timeout=seconds,
)  # fmt: skip
@checked_first
@operation()
def s6_service(
    service: str,
    running: bool | None = True,
    *,
    restarted: bool = False,
    reloaded: bool | str = False,
    enabled: bool | None = None,
    present: bool = True,
    run: str | None = None,
    prepare: str | None = None,
    finish: str | None = None,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    check: str | None = None,
    notification_fd: int | None = None,
    down_signal: str | None = None,
    timeout_kill: int | None = None,
    max_death_tally: int | None = None,
    needs: Sequence[str] | None = None,
    log: bool | str = True,
    timeout: int = 60,
    scandir: str = SCANDIR,
    sourcedir: str = SOURCEDIR,
    livedir: str = SERVICEDIRS,
) -> Generator[StringCommand, None, None]:
    """
    Manage a service that s6 supervises: one that this defines, or any other of a scan directory.

    + service: name of the service
    + running: whether it should run, which means ready if it tells that; None leaves it as it is
    + restarted: whether to restart it, if it runs already
    + reloaded: whether to send it SIGHUP, if it runs already; or the name of another signal
    + enabled: whether it should start at boot; None leaves it as it is, which is yes for a new one
    + present: whether it should exist; without, it is stopped and removed, its log stays
    + run: the service itself, as sh; what follows belongs to it. Without, the service is defined elsewhere
    + prepare: sh that runs as root before each start
    + finish: sh that runs after each end, with exit code (256: by a signal) and signal
    + user: who it runs as, root without
    + environment: variables, readable by root only
    + check: sh that is tried until it succeeds: then the service is ready
    + notification_fd: number of the descriptor on which the service itself tells that it is ready
    + down_signal: the signal that ends it, SIGTERM without
    + timeout_kill: milliseconds until it is killed if it does not end; without, never
    + max_death_tally: how many of its deaths s6 remembers, 100 without
    + needs: services of the scan directory that are ready before it starts
    + log: whether s6-log keeps its output, in ``/data/state/var/log/<service>``; or another directory
    + timeout: seconds for all of this
    + scandir: the scan directory, on which s6-svscan runs
    + sourcedir: where its directory is kept for the next boot, which copies it; empty if nothing does
    + livedir: where the copy is that s6 works on, linked into the scan directory

    A service is defined anew, and restarted for that, only where one of its files differs. Fails on a host where it
    is not as wanted in time: its last output is shown, and it is as it was before. What needs a service that
    restarts, or is defined anew, is stopped before it and started again after it; what needs one that stops or is
    removed is stopped before it.

    **Example:**

    .. code:: python

        s6_service(
            name="Run the worker",
            service="worker",
            run="/usr/local/bin/worker --foreground",
            user="nobody",
            environment={"QUEUE": "mail"},
            check="test -S /run/worker/socket",
        )

        s6_service(
            name="Restart PostgreSQL",
            service="postgresql",
            restarted=True,
        )
    """
    wanted = wanted_of(locals())
    # Something else may have stopped it since the last operation of ours: this is asked each time.
    services = host.get_fact(S6Services, scandir=scandir, sourcedir=sourcedir)
    if services is None:
        yield failure(f"the services of {host.name} are unknown", "see the error of the fact S6Services above")
        return
    steps = _planned(wanted, services)
    if isinstance(steps, Unfit):
        yield failure(*steps)
    elif not steps:
        host.noop(f"service {service} is {_words(services.get(service)) if present else 'not there'}")
    else:
        _announce(wanted, steps)
        yield _command(wanted, steps)


def _planned(wanted: Wanted, services: Mapping[str, S6Service]) -> list[str] | Unfit:
    """What service.sh has to do, or why it cannot."""
    found = services.get(wanted.service)
    if wanted.present and not (found or wanted.files or memory().may_come(wanted.service)):
        names = ", ".join(sorted(services)) or "none"
        return Unfit(f"{host.name} has no service {wanted.service}", f"it has: {names}; run=… would define it")
    steps = ["remove"] if found and not wanted.present else []
    if wanted.present:
        kept = bool(wanted.sourcedir)
        steps += steps_for(found, wanted.files, running=wanted.running, enabled=wanted.enabled, kept=kept)
        steps += if_it_ran(found, steps, restarted=wanted.restarted, signal=wanted.signal)
    try:
        return with_what_needs_it(wanted.service, services, steps)
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        return Unfit(
            f"services of {host.name} need each other in a circle: {circle}", "define one of them without that need"
        )


def _announce(wanted: Wanted, steps: list[str]) -> None:
    known = memory()
    if not known.shown_already(f"s6_service {wanted.scandir}/{wanted.service} {steps}"):
        host.log(f"service {wanted.service}: {', '.join(in_words(step) for step in steps)}")
    if wanted.files:
        known.will_define(wanted.service)
    known.changes()


def _command(wanted: Wanted, steps: list[str]) -> StringCommand:
    """Its definition goes with it, where it has one."""
    arguments = (
        *(wanted.scandir, wanted.sourcedir, wanted.livedir, wanted.service, wanted.log or "", str(wanted.timeout)),
        *" ".join(steps).split(),
    )
    script = StringCommand("sh -c", QuoteString(_script()), "s6_service", *map(QuoteString, arguments))
    if not wanted.files:
        return script
    return StringCommand(script, _stdin=Upload(host, wanted.service, Packets([archive(wanted.files)])))


def _words(found: S6Service | None) -> str:
    return "ready" if found and found.up and found.ready else "up" if found and found.up else "down"


@cache
def _script() -> str:
    text = "".join((resources.files(__package__) / name).read_text("utf-8") for name in _SCRIPTS)
    words = ("TELLS", "BEGINS", "SETTLES", "SETTLES_SILENT", "DEATHS")
    return filled(text, {word: str(getattr(readiness, word)) for word in words})
