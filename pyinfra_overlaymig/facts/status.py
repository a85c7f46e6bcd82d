"""One composite fact, and views of it: a run costs the same round trips for one migration as for a hundred."""

from __future__ import annotations

from pyinfra.api import FactBase, FactProcessError, ShortFactBase, StringCommand

from pyinfra_overlaymig.errors import InvalidStatus
from pyinfra_overlaymig.status import MigrationRecord, ServiceStatus, Status, parse

RUNNER = "/data/system/runner/system-migrate"


def status_command() -> StringCommand:
    """Prints the status, also where no runner is; one who may not look gets an error, not "no runner"."""
    return StringCommand(
        f"if [ -x {RUNNER} ]; then {RUNNER} status;",
        'elif [ "$(id -u)" = 0 ]; then echo \'{"format": 1, "runner": null}\';',
        "else echo 'the status is for root to read: use _sudo=True' >&2; exit 1; fi",
    )


def status_of(output: list[str]) -> Status:
    """The status that a machine printed, errors as pyinfra's."""
    try:
        return parse("\n".join(output))
    except InvalidStatus as error:
        raise FactProcessError(f"{error}; {error.hint}") from error


class MachineStatus(FactBase[Status]):
    """
    Returns all that the runner knows about a machine; every other fact here is a view of it.

    + ``known`` is false where the machine could not be asked, which says nothing about what it has
    + ``runner`` is null where no runner is installed

    .. code:: python

        {
            "known": true,
            "format": 1,
            "runner": {"version": "0.1.0", "digest": "5f0c…"},
            "host": "lab-1",
            "generation": 1,
            "running": 1,
            "stack": ["20240206-001_add_postgresql"],
            "migrations": [{"id": "20240206-001_add_postgresql", "status": "applied", …}],
            "services": [{"name": "postgresql", "up": true, "ready": true, …}],
            "lock": null,
            …
        }
    """

    def command(self) -> StringCommand:
        return status_command()

    @staticmethod
    def default() -> Status:
        return Status.unknown()

    def process(self, output: list[str]) -> Status:
        return status_of(output)


class Migrations(ShortFactBase[dict[str, MigrationRecord] | None]):
    """
    Returns the migrations that a machine has, by id; None if unknown, empty without a runner.

    .. code:: python

        {"20240206-001_add_postgresql": {"status": "applied", "generation": 1, "active": true, …}}
    """

    fact = MachineStatus

    def process_data(self, data: Status) -> dict[str, MigrationRecord] | None:
        return {one.id: one for one in data.migrations} if data.known else None


class OverlayLayers(ShortFactBase[list[str] | None]):
    """
    Returns the layers of the current generation, lowest first; None if unknown.

    .. code:: python

        ["20240206-001_add_postgresql", "20240301-001_add_build_tools"]
    """

    fact = MachineStatus

    def process_data(self, data: Status) -> list[str] | None:
        return list(data.stack) if data.known else None


class S6Services(ShortFactBase[dict[str, ServiceStatus] | None]):
    """
    Returns the services of a machine, by name; None if unknown.

    .. code:: python

        {"postgresql": {"up": true, "ready": true, "pid": 211, "wanted_up": true, "since": 1795446000}}
    """

    fact = MachineStatus

    def process_data(self, data: Status) -> dict[str, ServiceStatus] | None:
        return {one.name: one for one in data.services} if data.known else None


class MigrationApplied(FactBase[bool | None]):
    """
    Returns whether a migration is applied and part of the current generation; None if unknown.

    + id: of the migration

    .. code:: python

        host.get_fact(MigrationApplied, id="20240206-001_add_postgresql")  # True
    """

    def command(self, id: str) -> StringCommand:
        self.id = id
        return StringCommand(f": {id};", status_command())

    @staticmethod
    def default() -> bool | None:
        return None

    def process(self, output: list[str]) -> bool | None:
        found = status_of(output).migration(self.id)
        return bool(found and found.active and found.status == "applied")
