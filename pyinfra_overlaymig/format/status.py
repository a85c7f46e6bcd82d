"""The runner's status as values: *unknown* is never *absent*; it must not talk to machines."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from pyinfra_overlaymig.format import history
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.json_fields import Fields, mismatch
from pyinfra_overlaymig.format.octal import escape_text

FORMAT: Final = 1


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
    """Which `system-migrate` a machine has; ``digest`` as of ``bundle.runner_archive``."""

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
    where it was.
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
class LockOwner(Record):
    """Who is changing the machine at this moment, as that process recorded itself."""

    who: str
    source: str
    pid: int
    boot_id: str
    since: str
    verb: str
    id: str

    def to_json(self) -> dict[str, Any]:
        return {"from" if key == "source" else key: one for key, one in super().to_json().items()}


@dataclass(frozen=True)
class Status(Record):
    """A machine. All but ``known`` has meaning only where ``prepared``.

    ``audit``: `on` where it can be seen who changes what, else why not.
    ``failed_boots``: boots in a row in which services of the current generation did not get ready.
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
    migrations: tuple[MigrationRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    services: tuple[ServiceStatus, ...] = ()
    lock: LockOwner | None = None
    audit: str = ""
    missing: tuple[str, ...] = ()

    @property
    def prepared(self) -> bool:
        """Whether it is known that the runner is there."""
        return self.known and self.runner is not None

    @property
    def troubles(self) -> tuple[str, ...]:
        """What somebody has to look at, each in a few words; none of a machine that is well or busy."""
        if not self.prepared or self.lock:
            return ()
        down = [
            f"{one.name} ({one.reason})" if one.reason else one.name
            for one in self.services
            if one.reason or (one.wanted_up and not one.ready)
        ]
        halfway = [one.id for one in self.migrations if one.active and one.status != "applied"]
        current = next((one for one in self.generations if one.n == self.generation), None)
        instead = current.instead_of if current else None
        other_base = current is not None and current.base not in ("", self.base)
        found = {
            f"not ready: {', '.join(down)}": down,
            f"not finished: {', '.join(halfway)}": halfway,
            f"generation {self.running} runs instead of {self.generation}": self.running != self.generation,
            f"generation {self.generation} is a fall-back from {instead}": instead is not None,
            f"the base has changed since generation {self.generation} was made": other_base,
            f"lacks {', '.join(self.missing)}": self.missing,
        }
        return tuple(text for text, there in found.items() if there)

    def migration(self, id: str) -> MigrationRecord | None:
        """The record of the migration ``id``, if the machine has it."""
        return next((one for one in self.migrations if one.id == id), None)

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


def parse(text: str) -> Status:
    """The status that the runner printed as ``text``; FormatError if it is not one."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FormatError(
            f"the status is no JSON: {error}",
            hint="run `/data/system/runner/system-migrate status` on the machine and look at it",
        ) from error
    top = Fields.of(document, "status")
    if top.values.get("known") is False:
        return UNKNOWN
    found = top.number("format")
    if found != FORMAT:
        raise FormatError(
            f"the status has format {found}; this overlaymig reads format {FORMAT}",
            hint="update overlaymig here, or let machine_prepared update the machine's runner",
        )
    return Status(known=True) if _has_no_runner(top) else _status(top)


def _has_no_runner(top: Fields) -> bool:
    """Null says so; a document that says nothing of it is no status."""
    if "runner" not in top.values:
        raise mismatch("status.runner", "an object or null", "missing")
    return top.values["runner"] is None


def _status(top: Fields) -> Status:
    return Status(
        known=True,
        runner=top.optional("runner", lambda one: Runner(one.text("version"), one.text("digest"))),
        host=top.text("host"),
        boot_id=top.text("boot_id"),
        kernel=top.text("kernel"),
        booted=top.flag("booted"),
        base=top.text("base"),
        generation=top.number("generation"),
        running=top.number("running"),
        failed_boots=top.optional_number("failed_boots") or 0,
        stack=top.texts("stack"),
        generations=_generations(top),
        migrations=_migrations(top),
        evidence=top.objects(
            "evidence",
            lambda one: Evidence(one.text("id"), one.text("failed_at"), one.word("exit")),
        ),
        services=top.objects("services", _service),
        lock=top.optional("lock", _lock),
        audit=top.optional_text("audit"),
        missing=top.texts("missing"),
    )


def _generations(top: Fields) -> tuple[Generation, ...]:
    told = top.objects("generations", _told_generation)
    try:
        return tuple(Generation(*one) for one in history.read_generations(told))
    except FormatError as error:
        raise mismatch(f"{top.where}.generations", "a history", str(error)) from error


def _told_generation(one: Fields) -> dict[str, Any]:
    """As it is told, in full or by what it changed, each key with the type it must have."""
    told: dict[str, Any] = {"n": one.number("n"), "instead_of": one.optional_number("instead_of")}
    told |= {key: one.number(key) for key in ("parent", "to", "drop", "below") if key in one.values}
    told |= {key: one.texts(key) for key in ("stack", "add") if key in one.values}
    if "base" in one.values:
        told["base"] = one.optional_text("base")
    return told


def _migrations(top: Fields) -> tuple[MigrationRecord, ...]:
    told = top.values.get("migrations")
    if isinstance(told, dict):
        try:
            top = Fields({"migrations": history.read_migrations(told)}, top.where)
        except FormatError as error:
            raise mismatch(f"{top.where}.migrations", "a list or a table", str(error)) from error
    return top.objects("migrations", _migration)


def _migration(one: Fields) -> MigrationRecord:
    return MigrationRecord(
        id=one.text("id"),
        digest=one.text("digest"),
        status=one.text("status"),
        applied_at=one.text("applied_at"),
        generation=one.number("generation"),
        active=one.flag("active"),
        state=one.paths("state"),
        services=one.texts("services"),
        size=one.number("size"),
        files=one.number("files"),
        audit=one.optional_text("audit"),
        lost=one.optional_number("lost"),
        unexplained=one.optional_number("unexplained"),
    )


def _service(one: Fields) -> ServiceStatus:
    return ServiceStatus(
        name=one.text("name"),
        up=one.flag("up"),
        ready=one.flag("ready"),
        pid=one.optional_number("pid"),
        wanted_up=one.flag("wanted_up"),
        since=one.optional_number("since"),
        reason=one.text("reason") if "reason" in one.values else "",
    )


def _lock(one: Fields) -> LockOwner:
    return LockOwner(
        who=one.text("who"),
        source=one.text("from"),
        pid=one.number("pid"),
        boot_id=one.text("boot_id"),
        since=one.text("since"),
        verb=one.text("verb"),
        id=one.text("id"),
    )
