"""Makes a machine ready for migrations: the tools they need, and this version's runner."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_overlaymig.bundle import runner_archive, wire
from pyinfra_overlaymig.operations._command import LiveCommand, status_unknown
from pyinfra_overlaymig.operations._status import forget_status, machine_status, shown_already
from pyinfra_overlaymig.status import Status

_PACKAGES = Path(__file__).with_name("packages.sh").read_text("utf-8")
_INSTALL = """\
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT && base64 -d | tar -xz -C "$d" &&
{ [ "$1" != packages ] || sh -c "$2" sh "$d"; } && sh "$d/system-migrate" init && sh "$d/system-migrate" check"""


@operation()
def machine_prepared(packages: bool = True) -> Generator[StringCommand, None, None]:
    """
    Makes a machine ready for migrations: /data/system, this version's runner, the tools it needs.

    + packages: install the Debian packages of missing tools with apt-get; without it, a machine that
      lacks some fails, naming them

    Uploads the runner only where it differs from this version's. The machine must have a persistent
    /data, and has to boot through ``system-migrate boot`` for migrations that bring services.

    **Example:**

    .. code:: python

        machine_prepared(name="Prepare the machine")
    """
    status = machine_status()
    if not status.known:
        yield status_unknown(host)
        return
    archive, digest = runner_archive()
    if status.runner and status.runner.digest == digest and not status.missing:
        host.noop(f"the runner is {digest[:12]}, and nothing is missing")
        return
    if not shown_already("machine"):
        host.log(f"machine: {_change(status, digest, packages)}")
    forget_status()
    yield LiveCommand(
        "sh -c", QuoteString(_INSTALL), "sh", "packages" if packages else "none", QuoteString(_PACKAGES),
        _stdin=wire(archive),
    )  # fmt: skip


def _change(status: Status, digest: str, packages: bool) -> str:
    new = digest[:12]
    if status.runner is None:
        return f"has no runner, {new} will be installed"
    if status.runner.digest != digest:
        return f"has runner {status.runner.digest[:12] or status.runner.version}, {new} will be installed"
    missing = ", ".join(status.missing)
    return f"lacks {missing}" + (", which will be installed" if packages else "")
