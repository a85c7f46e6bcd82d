"""Reads the status that a machine's runner printed, of whichever age; beside status.py, which says what it is."""

from __future__ import annotations

import json
from typing import Any

from pyinfra_overlaymig.format import FORMAT, history
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.json_fields import Fields, mismatch
from pyinfra_overlaymig.format.needs import Unfit
from pyinfra_overlaymig.format.octal import unescape_text
from pyinfra_overlaymig.format.status import (
    UNKNOWN,
    Evidence,
    Generation,
    LockOwner,
    MigrationRecord,
    Runner,
    ServiceStatus,
    Stale,
    Status,
)


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
    return Status(known=True, unfit=_unfit(top)) if _has_no_runner(top) else _status(top)


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
        broken=top.optional_numbers("broken"),
        migrations=_migrations(top),
        evidence=top.objects(
            "evidence",
            lambda one: Evidence(one.text("id"), one.text("failed_at"), one.word("exit")),
        ),
        services=top.objects("services", _service),
        defined=top.optional_texts("defined"),
        stale=top.objects("stale", _stale) if "stale" in top.values else (),
        lock=top.optional("lock", _lock),
        audit=top.optional_text("audit"),
        missing=top.texts("missing"),
        unfit=_unfit(top),
    )


def _unfit(top: Fields) -> Unfit | None:
    """A runner that is to be updated says nothing of it."""
    if top.values.get("unfit") is None:
        return None
    words = top.texts("unfit")
    try:
        return Unfit(*words)
    except TypeError as error:
        raise mismatch(f"{top.where}.unfit", "a reason and a hint", f"{len(words)} texts") from error


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
        # A runner that is to be updated says none of these.
        local=one.flag("local") if "local" in one.values else False,
        content=one.optional_text("content"),
        conflicts=one.optional_texts("conflicts"),
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


def _stale(one: Fields) -> Stale:
    name, path = (unescape_text(one.text(key)) for key in ("name", "path"))
    return Stale(one.number("pid"), name, one.text("what"), path)


def _lock(one: Fields) -> LockOwner:
    return LockOwner(
        who=one.text("who"),
        source=one.text("from"),
        pid=one.number("pid"),
        boot_id=one.text("boot_id"),
        since=one.text("since"),
        verb=one.text("verb"),
        id=one.text("id"),
        awaits=one.optional_text("awaits"),
    )
