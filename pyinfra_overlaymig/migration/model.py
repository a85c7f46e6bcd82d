"""What a migration is, on the operator's side; what of it is digested and sent, format/ says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pyinfra_overlaymig.format import limits, plan

FILES = "files"
"""The folder of a migration whose files are laid over the machine's root."""


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
    """A regular file of a migration; ``path`` is relative to its folder, surrogate-escaped, ``mode`` the machine's."""

    path: str
    source: Path = field(compare=False)
    sha256: str
    mode: int


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
    ``lines``: where migration.yaml says what can turn out wrong only beside other migrations. ``warnings``: what its
    author may not have meant.
    ``strict_order``: its folder's, by which it is refused where a newer one is applied.
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
    warnings: tuple[str, ...] = field(default=(), compare=False)
    strict_order: bool = False

    @cached_property
    def plan(self) -> bytes:
        """What the runner reads and what is digested: all that shapes the result, in one form."""
        wanted = plan.Plan(
            id=self.id,
            depends=self.depends,
            conflicts=self.conflicts,
            state=self.state,
            state_links=self.state_links,
            stop=self.stop,
            services=tuple(service.name for service in self.services),
            settings=tuple(
                plan.Setting(service.name, key, value) for service in self.services for key, value in service.settings()
            ),
            members=tuple(plan.Member(f"{one.mode:04o}", one.sha256, one.path) for one in self.members),
            links=tuple(plan.Link(one.target, one.path) for one in self.links),
        )
        return plan.text(wanted).encode("ascii")

    @cached_property
    def limits(self) -> bytes:
        """How it is applied, not what it is, so no part of the digest. Times in seconds."""
        wanted = limits.Limits(
            timeout=self.timeout,
            verify_timeout=self.verify_timeout,
            verify_retries=self.verify_retries,
            drift=self.drift,
            audit=self.audit,
            snapshot=self.snapshot,
            ready={service.name: service.ready_timeout for service in self.services},
            restarts={service.name: service.restart for service in self.services},
            strict_order=self.strict_order,
        )
        return limits.text(wanted).encode("ascii")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan, in hex."""
        return hashlib.sha256(self.plan).hexdigest()

    @cached_property
    def content(self) -> str:
        """A word for the plan but for the id: of two folders that differ in their names alone it is the same."""
        return plan.content(self.plan.decode("ascii"))

    def script(self, name: str = "install.sh") -> str:
        """Text of one of its scripts, for reading: bytes that are no UTF-8 are replaced."""
        return (self.folder / name).read_text("utf-8", "replace")
