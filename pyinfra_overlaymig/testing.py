"""A pytest plugin: what testinfra sees of a machine's migrations and services, from outside and without the runner.

Installed with overlaymig, it adds one fixture beside testinfra's `host`:

    def test_database(overlaymig):
        assert overlaymig.migration("20240206-001_add_postgresql").is_applied
        assert overlaymig.service("postgresql").is_ready

`pytest --hosts=ssh://root@machine` says which machines. Nothing is cached: each question asks the machine.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import pytest

from pyinfra_overlaymig.format.paths import GENERATIONS, LAYERS, MIGRATIONS, PROGRAM, SCANDIR, STATE
from pyinfra_overlaymig.format.readiness import TELLS, is_ready
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.format.status_reader import parse


@dataclass(frozen=True)
class Migration:
    """A migration on a machine, as its folder and layer on disk show it."""

    host: Any
    id: str

    @property
    def is_applied(self) -> bool:
        """Marked as applied, its layer there, and part of the current generation."""
        quoted = shlex.quote(self.id)
        return bool(
            self.host.file(f"{MIGRATIONS}/{self.id}/applied").is_file
            and self.host.file(f"{LAYERS}/{self.id}").is_directory
            and self.host.run(f"grep -qx layer\\ {quoted} {GENERATIONS}/current").rc == 0
        )

    @property
    def changes(self) -> list[str]:
        """The lines of changes.list, as FORMAT.md describes them."""
        text: str = self.host.file(f"{MIGRATIONS}/{self.id}/changes.list").content_string
        return text.splitlines()


@dataclass(frozen=True)
class Service:
    """A service of a machine, as s6 itself tells."""

    host: Any
    name: str

    @property
    def is_ready(self) -> bool:
        """Up, and ready if it tells readiness."""
        tells = bool(self.host.file(self._path(TELLS)).exists)
        return is_ready(up=self._stat("up"), told=self._stat("ready"), tells=tells)

    @property
    def pid(self) -> int | None:
        """Of its process, None when it is down."""
        answer = int(self._ask("pid") or -1)
        return answer if answer > 0 else None

    def _stat(self, what: str) -> bool:
        return self._ask(what) == "true"

    def _ask(self, what: str) -> str:
        answer: str = self.host.run(f"s6-svstat -o {what} {shlex.quote(self._path())}").stdout
        return answer.strip()

    def _path(self, part: str = "") -> str:
        return f"{SCANDIR}/{self.name}/{part}".rstrip("/")


@dataclass(frozen=True)
class State:
    """A state path of a machine: what it shows is what /data/state keeps."""

    host: Any
    path: str

    @property
    def is_mounted(self) -> bool:
        """Mounted from /data/state, not merely a directory of the same name."""
        here, kept = shlex.quote(self.path), shlex.quote(f"{STATE}{self.path}")
        return bool(self.host.run(f"mountpoint -q {here} && test {here} -ef {kept}").rc == 0)


@dataclass(frozen=True)
class Machine:
    """A machine, through testinfra's ``host``."""

    host: Any

    def migration(self, id: str) -> Migration:
        """The migration called ``id``, applied or not."""
        return Migration(self.host, id)

    def service(self, name: str) -> Service:
        """The service called ``name``, there or not."""
        return Service(self.host, name)

    def state(self, path: str) -> State:
        """What lies at a state path."""
        return State(self.host, path)

    @property
    def status(self) -> Status:
        """What the runner itself says."""
        return parse(self.host.check_output(f"{PROGRAM} status"))


@pytest.fixture
def overlaymig(host: Any) -> Machine:
    """The machine that testinfra's ``host`` reaches."""
    return Machine(host)
