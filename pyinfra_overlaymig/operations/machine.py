"""Brings the runner, and what it needs, to a machine."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from importlib import resources

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.format.needs import PROGRAMS
from pyinfra_overlaymig.format.paths import PROGRAM
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.migration.runner import LAUNCHER, runner_digest, runner_packets
from pyinfra_overlaymig.operations._arguments import read_first, truth
from pyinfra_overlaymig.operations._command import LiveCommand, failure, status_unknown
from pyinfra_overlaymig.operations._foreseen import foresee
from pyinfra_overlaymig.operations._run import memory
from pyinfra_overlaymig.operations._upload import Upload


@read_first(packages=truth)
@operation()
def machine_prepared(packages: bool = True) -> Generator[StringCommand, None, None]:
    """
    Makes a machine ready for migrations: the runner of this overlaymig, and what it needs.

    + packages: install the Debian packages of commands that are missing; without, they are refused

    The runner is uploaded only where its digest differs. The machine needs its persistent volume
    on ``/data``.

    **Example:**

    .. code:: python

        machine_prepared(name="Prepare the machine")
    """
    status = memory().status()
    if not status.known:
        yield status_unknown(host)
        return
    changes = list(_changes(status))
    if status.unfit and not changes:
        yield failure(*status.unfit)
        return
    if not changes:
        host.noop(f"runner {runner_digest()[:12]} is installed and nothing is missing")
        return
    if not packages and status.missing and len(changes) == 1:
        yield failure(changes[0], "install them in the base, or let machine_prepared do it")
        return
    if not memory().shown_already("machine_prepared"):
        for change in changes:
            host.log(f"machine: {change}")
    if status.unfit:
        # The machine says so itself, once it has its runner.
        foresee(*status.unfit)
    memory().will_prepare()
    memory().changes()
    yield _prepare(packages)


def _changes(status: Status) -> Iterator[str]:
    digest = runner_digest()
    if status.runner is None:
        yield f"has no runner, {digest[:12]} will be installed"
    elif status.runner.digest != digest:
        yield f"has runner {status.runner.digest[:12]}, {digest[:12]} will be installed"
    if status.missing:
        yield f"lacks {', '.join(status.missing)}"


def _prepare(packages: bool) -> StringCommand:
    """One command: unpack, install packages, install the runner, have it look at the machine."""
    script = (resources.files(__package__) / "packages.sh").read_text("utf-8")
    needs = " ".join(f"{need.program}:{need.package}" for need in PROGRAMS)
    install = ("&& sh -c", QuoteString(script), f"packages {needs} </dev/null") if packages else ()
    return LiveCommand(
        'd=$(mktemp -d) && tar -xz -C "$d"',
        *install,
        f'&& sh "$d/{LAUNCHER}" init && {PROGRAM} check; rc=$?; rm -rf "$d"; exit $rc',
        _stdin=Upload(host, "runner", memory().once(b"runner", runner_packets)),
    )
