"""The runner's status as values: *unknown* is never *absent*; it must not talk to machines."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from pyinfra_overlaymig.format import FORMAT, history
from pyinfra_overlaymig.format.needs import Unfit
from pyinfra_overlaymig.format.octal import escape_text


class Record:
    """Part of a status; pyinfra's JSON encoder asks it for ``to_json``."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """This part as the runner writes it."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.to_json() if isinstance(value, Record) else value


@dataclass(frozen=True)
class Runner(Record):
    """Which `system-migrate` a machine has; ``digest`` as of ``migration.runner``."""

    version: str
    digest: str


@dataclass(frozen=True)
class Generation(Record):
    """A recorded stack of layers; ``instead_of``: the generation that this is a fall-back from.

    ``base``: the identity of the base that the machine had when it was made.
    """

    n: int
    stack: tuple[str, ...]
    instead_of: int | None = None
    base: str = ""


@dataclass(frozen=True)
class MigrationRecord(Record):
    """A migration that a machine has. ``size`` in bytes; ``active``: its layer is in the stack.

    ``status`` is `applied`, `committed` when it was interrupted after its commit point, or `unreadable`. ``audit`` is
    `on` where it was watched from begin to end, else why not; ``lost`` and ``unexplained`` count records and paths,
    where it was. ``local``: made on the machine. ``content``: a word for what it is but for its id, empty if unknown.
    """

    id: str
    digest: str
    status: str
    applied_at: str
    generation: int
    active: bool
    state: tuple[str, ...]
    services: tuple[str, ...]
    size: int
    files: int
    audit: str = ""
    lost: int | None = None
    unexplained: int | None = None
    local: bool = False
    content: str = ""
    conflicts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"state": [escape_text(path) for path in self.state]}


@dataclass(frozen=True)
class Evidence(Record):
    """What is kept of a failed migration; ``why``: exit of its script, or how else it failed."""

    id: str
    failed_at: str
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "failed_at": self.failed_at, "exit": self.why}


@dataclass(frozen=True)
class ServiceStatus(Record):
    """A supervised service; ``since``: seconds of the epoch, of its last change; ``reason``: why it stays down."""

    name: str
    up: bool
    ready: bool
    pid: int | None
    wanted_up: bool
    since: int | None
    reason: str


@dataclass(frozen=True)
class Stale(Record):
    """A process that holds a socket, lock, FIFO, watch, directory or root directory of a root before the running one.

    ``path`` is empty where the kernel does not tell it.
    """

    pid: int
    name: str
    what: str
    path: str

    @property
    def thing(self) -> str:
        """What it holds, and where, in words."""
        return f"{self.what} {escape_text(self.path)}" if self.path else self.what

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"name": escape_text(self.name), "path": escape_text(self.path)}


@dataclass(frozen=True)
class LockOwner(Record):
    """Who is changing the machine at this moment, as that process recorded itself.

    ``awaits``: `confirmation` while it waits for a new connection to say that the machine can be reached.
    """

    who: str
    source: str
    pid: int
    boot_id: str
    since: str
    verb: str
    id: str
    awaits: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"from" if key == "source" else key: one for key, one in super().to_json().items()}


@dataclass(frozen=True)
class Status(Record):
    """A machine. All but ``known`` has meaning only where ``prepared``.

    ``audit``: `on` where it can be seen who changes what, else why not.
    ``failed_boots``: boots in a row in which services of the current generation did not get ready.
    ``broken``: generations that cannot be gone to. ``defined``: services that the running root defines.
    """

    known: bool
    runner: Runner | None = None
    host: str = ""
    boot_id: str = ""
    kernel: str = ""
    booted: bool = False
    base: str = ""
    generation: int = 0
    running: int = 0
    failed_boots: int = 0
    stack: tuple[str, ...] = ()
    generations: tuple[Generation, ...] = ()
    broken: tuple[int, ...] = ()
    migrations: tuple[MigrationRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    services: tuple[ServiceStatus, ...] = ()
    defined: tuple[str, ...] = ()
    stale: tuple[Stale, ...] = ()
    lock: LockOwner | None = None
    audit: str = ""
    missing: tuple[str, ...] = ()
    unfit: Unfit | None = None

    @property
    def prepared(self) -> bool:
        """Whether it is known that the runner is there."""
        return self.known and self.runner is not None

    @property
    def troubles(self) -> tuple[str, ...]:
        """What somebody has to look at, each in a few words; none of a machine that is well or busy."""
        if not self.prepared or self.lock:
            return ()
        if self.unfit:
            return (self.unfit.why,)
        down = [
            f"{one.name} ({one.reason})" if one.reason else one.name
            for one in self.services
            if one.reason or (one.wanted_up and not one.ready)
        ]
        halfway = [one.id for one in self.migrations if one.active and one.status != "applied"]
        # Who stands in a directory that is gone notices when it matters.
        holding = {f"{one.name} ({one.thing})" for one in self.stale if one.what != "directory"}
        current = next((one for one in self.generations if one.n == self.generation), None)
        instead = current.instead_of if current else None
        other_base = current is not None and current.base not in ("", self.base)
        found = {
            f"not ready: {', '.join(down)}": down,
            f"not finished: {', '.join(halfway)}": halfway,
            f"generation {self.running} runs instead of {self.generation}": self.running != self.generation,
            f"generation {self.generation} is a fall-back from {instead}": instead is not None,
            f"the base has changed since generation {self.generation} was made": other_base,
            f"holding what a switch took away, to be restarted: {', '.join(sorted(holding))}": holding,
            f"lacks {', '.join(self.missing)}": self.missing,
        }
        return tuple(text for text, there in found.items() if there)

    def migration(self, id: str) -> MigrationRecord | None:
        """The record of the migration ``id``, if the machine has it."""
        return next((one for one in self.migrations if one.id == id), None)

    @property
    def late(self) -> dict[str, str]:
        """The migrations that lie on top of newer ones, each with the newest of these, which was there first."""
        found: dict[str, str] = {}
        newest = ""
        for id in self.stack:
            one = self.migration(id)
            if one is None or one.local:
                continue
            if id < newest:
                found[id] = newest
            newest = max(newest, id)
        return found

    def service(self, name: str) -> ServiceStatus | None:
        """The service ``name``, if the machine has it."""
        return next((one for one in self.services if one.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The runner's own document again, plus ``known``; ``parse`` reads it."""
        if not self.known:
            return {"known": False}
        if self.runner is None:
            return {"known": True, "format": FORMAT, "runner": None}
        past = [history.Past(one.n, one.stack, one.instead_of, one.base) for one in self.generations]
        told = {
            "generations": history.tell_generations(past),
            "migrations": history.tell_migrations([one.to_json() for one in self.migrations]),
        }
        return {"known": True, "format": FORMAT} | super().to_json() | told


UNKNOWN: Final = Status(known=False)
"""Nothing could be learnt about the machine: this says nothing about what it has."""
