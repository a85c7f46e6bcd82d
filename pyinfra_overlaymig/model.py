"""What a migration is, and the canonical form its digest covers; it must not read files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Final

from pyinfra_overlaymig.format.octal import escape_text

PLAN_FORMAT: Final = 1
ID_EXAMPLE: Final = "20240206-001_add_postgresql"
ID: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})-[0-9]{3}_[a-z0-9][a-z0-9_]{0,63}")
_NUMBER = re.compile(r"[0-9]+-[0-9]+_")


def valid_id(text: str) -> bool:
    """Whether ``text`` is an id: ``YYYYMMDD-NNN_label``, with a date of the calendar."""
    match = ID.fullmatch(text)
    if not match:
        return False
    try:
        date(*map(int, match.groups()))
    except ValueError:
        return False
    return True


def label(id: str) -> str:
    """What an id says in words: its part after date and number; anything else as it is."""
    return _NUMBER.sub("", id)


@dataclass(frozen=True)
class Service:
    """A supervised program. Texts are sh; ``ready_timeout`` in seconds, ``timeout_kill`` in ms.

    ``needs``: services that are ready before it starts. ``restart``: whether a switch restarts it.
    """

    name: str
    run: str
    prepare: str | None = None
    finish: str | None = None
    user: str | None = None
    check: str | None = None
    notification_fd: int | None = None
    ready_timeout: int = 60
    environment: tuple[tuple[str, str], ...] = ()
    down_signal: str | None = None
    timeout_kill: int | None = None
    max_death_tally: int | None = None
    needs: tuple[str, ...] = ()
    restart: str = "changed"

    def settings(self) -> Iterator[tuple[str, str]]:
        """Key and value of all that shapes the service; when to restart it, and how long to wait, does not."""
        for key in ("run", "prepare", "finish", "user", "check", "down_signal"):
            text: str | None = getattr(self, key)
            if text is not None:
                yield key, text
        for key in ("notification_fd", "timeout_kill", "max_death_tally"):
            number: int | None = getattr(self, key)
            if number is not None:
                yield key, str(number)
        for name, value in self.environment:
            yield "environment", f"{name}={value}"
        for other in self.needs:
            yield "needs", other


@dataclass(frozen=True)
class Member:
    """A regular file of a migration; ``path`` is relative to its folder, surrogate-escaped."""

    path: str
    source: Path = field(compare=False)
    sha256: str
    executable: bool

    @property
    def mode(self) -> int:
        """Permission bits it has on the machine."""
        return 0o755 if self.executable else 0o644


@dataclass(frozen=True)
class Link:
    """A symbolic link under ``files/``; its target is text and is never followed."""

    path: str
    target: str


@dataclass(frozen=True)
class Migration:
    """One migration folder, checked. Timeouts in seconds; ``drift``: what is done about drift in its way;
    ``audit``: whether it may go on where audit is not to be had.

    ``state_links``: those of ``state`` that are links to /data/state instead of mounts.
    ``lines``: where migration.yaml says what can turn out wrong only beside other migrations.
    """

    id: str
    folder: Path = field(compare=False)
    description: str
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    state_links: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    snapshot: bool = False
    drift: str = "refuse"
    audit: str = "wanted"
    timeout: int = 1800
    verify_timeout: int = 60
    verify_retries: int = 0
    services: tuple[Service, ...] = ()
    members: tuple[Member, ...] = ()
    links: tuple[Link, ...] = ()
    lines: dict[str, int] = field(default_factory=dict, compare=False)

    @cached_property
    def plan(self) -> bytes:
        """What the runner reads and what is digested: all that shapes the result, in one form."""
        return "".join(f"{line}\n" for line in _plan_lines(self)).encode("ascii")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan, in hex."""
        return hashlib.sha256(self.plan).hexdigest()

    def script(self, name: str = "install.sh") -> str:
        """Text of one of its scripts, for reading: bytes that are no UTF-8 are replaced."""
        return (self.folder / name).read_text("utf-8", "replace")


def _plan_lines(migration: Migration) -> Iterator[str]:
    yield f"format {PLAN_FORMAT}"
    yield f"id {migration.id}"
    for key, values in (
        ("depends", migration.depends),
        ("conflicts", migration.conflicts),
        ("state", migration.state),
        ("state-link", migration.state_links),
        ("stop", migration.stop),
    ):
        yield from sorted(f"{key} {escape_text(value)}" for value in values)
    yield from sorted(f"service {service.name}" for service in migration.services)
    yield from sorted(
        f"service-set {service.name} {key} {escape_text(value)}"
        for service in migration.services
        for key, value in service.settings()
    )
    yield from sorted(
        f"member {member.mode:04o} {member.sha256} {escape_text(member.path)}" for member in migration.members
    )
    yield from sorted(f"link {escape_text(link.target)} {escape_text(link.path)}" for link in migration.links)
