"""Reads a machine's status in one round trip, and shows parts of it; it must change nothing."""

from __future__ import annotations

import json
import shlex

from pyinfra.api import FactBase, FactProcessError, ShortFactBase, StringCommand

from pyinfra_overlaymig.format import FORMAT
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.needs import NO_DATA, NO_VOLUME, NOT_BOOTED, Unfit
from pyinfra_overlaymig.format.paths import DATA, PROGRAM, RUN
from pyinfra_overlaymig.format.status import UNKNOWN, MigrationRecord, Status
from pyinfra_overlaymig.format.status_reader import parse


def read_status(output: list[str]) -> Status:
    """What `status_command` printed, as a Status; FactProcessError if it is none."""
    try:
        return parse("\n".join(output))
    except FormatError as error:
        raise FactProcessError(f"{error} (hint: {error.hint})") from error


def _unprepared(unfit: Unfit | None) -> str:
    """The status of a machine that has no runner, said by sh."""
    return f"echo {shlex.quote(json.dumps({'format': FORMAT, 'runner': None, 'unfit': unfit}))}"


def status_command() -> StringCommand:
    """Who may not look into /data cannot tell that nothing is there: that is a failure."""
    return StringCommand(
        f"if [ -x {PROGRAM} ]; then {PROGRAM} status;",
        "elif [ \"$(id -u)\" != 0 ]; then echo 'this needs root: log in as root, or use --sudo' >&2; exit 111;",
        f"elif [ ! -d {DATA} ]; then {_unprepared(NO_DATA)};",
        f'elif [ "$(stat -f -c %T {DATA})" = overlayfs ]; then {_unprepared(NO_VOLUME)};',
        f"elif [ ! -e {RUN}/running ]; then {_unprepared(NOT_BOOTED)};",
        f"else {_unprepared(None)}; fi",
    )


class MachineStatus(FactBase[Status]):
    """
    Returns all that the runner knows about a machine; every other fact here is a view of it.

    + ``known`` is False when nothing could be learnt (unreachable, not root, unreadable): it then
      says nothing about what the machine has
    + ``runner`` is null where no runner is installed
    + ``size`` is in bytes, ``since`` in seconds of the epoch

    **Example:**

    .. code:: python

        from pyinfra_overlaymig.facts import MachineStatus

        generation = host.get_fact(MachineStatus).generation

    .. code:: json

        {
            "known": true,
            "format": 1,
            "runner": {"version": "0.1.0", "digest": "5f0c…"},
            "host": "lab-1",
            "boot_id": "0d3c…",
            "kernel": "6.18.0",
            "booted": true,
            "base": "a16d…",
            "generation": 1,
            "running": 1,
            "stack": ["20240206-001_add_postgresql"],
            "generations": [{"n": 1, "stack": ["20240206-001_add_postgresql"]}],
            "migrations": [],
            "evidence": [],
            "services": [],
            "lock": null,
            "audit": "on",
            "missing": [],
            "unfit": null
        }
    """

    def command(self) -> StringCommand:
        return status_command()

    @staticmethod
    def default() -> Status:
        return UNKNOWN

    def process(self, output: list[str]) -> Status:
        return read_status(output)


class Migrations(ShortFactBase[dict[str, MigrationRecord] | None]):
    """
    Returns the migrations that a machine has, by id; None if unknown, empty without a runner.

    .. code:: json

        {
            "20240206-001_add_postgresql": {
                "id": "20240206-001_add_postgresql",
                "digest": "6664…",
                "status": "applied",
                "applied_at": "2026-11-23T14:00:00Z",
                "generation": 1,
                "active": true,
                "state": ["/var/lib/postgresql"],
                "services": ["postgresql"],
                "size": 123456789,
                "files": 1842,
                "audit": "on",
                "lost": 0,
                "unexplained": 0,
                "local": false,
                "content": "9f3c…"
            }
        }
    """

    fact = MachineStatus

    def process_data(self, data: Status) -> dict[str, MigrationRecord] | None:
        return {one.id: one for one in data.migrations} if data.known else None


class OverlayLayers(ShortFactBase[tuple[str, ...] | None]):
    """
    Returns the layers of the running root, lowest first; None if unknown, empty for the bare base.

    .. code:: json

        ["20240206-001_add_postgresql", "20240301-001_add_build_tools"]
    """

    fact = MachineStatus

    def process_data(self, data: Status) -> tuple[str, ...] | None:
        if not data.known:
            return None
        return next((one.stack for one in data.generations if one.n == data.running), ())
