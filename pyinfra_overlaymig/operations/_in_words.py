"""Says in words what applying a migration means, before it is done; it must change nothing and ask no machine."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from pyinfra_overlaymig.facts.migration import Trace
from pyinfra_overlaymig.format.needs import Unfit
from pyinfra_overlaymig.format.octal import escape_text, unescape_text
from pyinfra_overlaymig.format.refusals import lacking, out_of_order, relations, stopped
from pyinfra_overlaymig.format.status import LockOwner, Status
from pyinfra_overlaymig.migration.model import Migration, Service

FILES = "files"


def contents(wanted: Migration) -> Iterator[str]:
    """All that a migration brings, for reading; a script may hold what a terminal would obey."""
    return map(_harmless, _contents(wanted))


def _contents(wanted: Migration) -> Iterator[str]:
    yield f"{wanted.id}: {wanted.description}"
    for what, values in (
        ("depends on", wanted.depends),
        ("conflicts with", wanted.conflicts),
        ("stops meanwhile", wanted.stop),
        ("keeps as state", wanted.state),
        ("links to that, instead of mounting it", wanted.state_links),
    ):
        if values:
            yield f"  {what}: {', '.join(values)}"
    for service in wanted.services:
        yield from _service(service)
    if wanted.snapshot:
        yield "  takes a snapshot of its state first"
    if wanted.drift != "refuse":
        yield f"  {wanted.drift}s drift that is in its way"
    files = list(_files(wanted))
    if files:
        yield "  brings files, owned by root:"
        yield from files
    for script in ("install.sh", "verify.sh"):
        if any(member.path == script for member in wanted.members):
            yield f"  {script}:"
            yield from (f"    {line}" for line in wanted.script(script).splitlines())


def warnings(wanted: Migration) -> Iterator[str]:
    """What its author may not have meant."""
    return (f"  warning: {_harmless(one)}" for one in wanted.warnings)


def refusals(
    wanted: Migration, status: Status, coming: Mapping[str, Collection[str]], *, services: bool = True
) -> Iterator[Unfit]:
    """Why the machine will refuse it, as far as its status tells, by the functions that the machine decides by.

    ``coming`` are the ids that are applied to the machine before this one, with what conflicts with each.
    ``services``: whether those that the status tells are those that will be there.
    """
    if status.lock and not status.lock.awaits:
        yield locked(status.lock)
    yield from lacking(status.missing)
    before = {one.id: one.conflicts for one in status.migrations if one.active} | dict(coming)
    yield from relations(wanted.id, wanted.depends, wanted.conflicts, before)
    if services:
        here = {*status.defined, *(one.name for one in status.services), *(one.name for one in wanted.services)}
        yield from stopped(wanted.id, wanted.stop, here)
    if wanted.strict_order:
        yield from out_of_order(wanted.id, _newest(status, before))


def remarks(wanted: Migration, status: Status, coming: Collection[str]) -> Iterator[str]:
    """What is no reason to refuse it, and yet may not be what was meant."""
    active = {one.id for one in status.migrations if one.active}
    newest = _newest(status, active.union(coming))
    if newest > wanted.id and not wanted.strict_order:
        yield f"it goes on top of {newest}, although it is older: that one {_when(newest, active)}"
    for one in status.migrations:
        if one.active and one.id != wanted.id and one.content == wanted.content:
            yield f"it is word for word what {one.id} is, which is applied here (generation {one.generation})"
            yield f"  if its folder was renamed, call it {one.id} again; as it is, it runs a second time"


def missing(known: Collection[str], status: Status) -> tuple[str, ...]:
    """The migrations that are applied here and that a folder, which has the ids ``known``, has not."""
    return tuple(one.id for one in status.migrations if one.active and not one.local and one.id not in known)


def _newest(status: Status, ids: Collection[str]) -> str:
    """Made on the machine itself, by `install` or `drift adopt`, is in nobody's order."""
    local = {one.id for one in status.migrations if one.local}
    return max((id for id in ids if id not in local), default="")


def _when(id: str, active: Collection[str]) -> str:
    return "is applied already" if id in active else "is applied before it by this run"


def edit(wanted: Migration, applied: Trace) -> Iterator[str]:
    """What differs between the folder and what was applied, for reading."""
    return map(_harmless, _edit(wanted, applied))


def _edit(wanted: Migration, applied: Trace) -> Iterator[str]:
    yield from _diff("install.sh", applied.install_script.splitlines(), wanted.script().splitlines())
    edited = wanted.plan.decode("ascii")
    yield from _diff("plan", _words(applied.plan), _words(edited))
    old, new = _members(applied.plan), _members(edited)
    others = [path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]
    if others:
        yield f"    changed as well: {', '.join(_readable(path) for path in others)}"


def _service(service: Service) -> Iterator[str]:
    yield f"  brings up the service {service.name}:"
    for key, value in service.settings():
        first, *more = value.splitlines() or [""]
        yield f"    {key}: {first}" if not more else f"    {key}:"
        if more:
            yield from (f"      {line}" for line in (first, *more))


def _files(wanted: Migration) -> Iterator[str]:
    for member in wanted.members:
        if member.path.startswith(f"{FILES}/"):
            size = member.source.stat().st_size
            yield f"    {member.mode:04o} {size:>8} {_printable(member.path.removeprefix(FILES))}"
    for link in wanted.links:
        yield f"    link {'':8} {_printable(link.path.removeprefix(FILES))} -> {_printable(link.target)}"


def locked(lock: LockOwner) -> Unfit:
    """Why nobody else can change the machine now."""
    doing = f"{lock.verb} {lock.id}".strip() or "something"
    why = f"{lock.who or 'somebody'} from {lock.source or 'nowhere'} holds the lock since {lock.since} ({doing})"
    return Unfit(why, "it goes on by itself; run this again when it is done")


def _diff(what: str, applied: list[str], edited: list[str]) -> Iterator[str]:
    names = (f"{what} (applied)", f"{what} (in the folder)")
    for line in difflib.unified_diff(applied, edited, *names, lineterm=""):
        yield f"    {line}"


def _words(plan: str) -> list[str]:
    """The lines of a plan but its members, unescaped; a value of many lines is as many lines."""
    lines: list[str] = []
    for line in plan.splitlines():
        if not line.startswith("member "):
            first, *more = " ".join(map(_readable, line.split(" "))).splitlines() or [""]
            lines += [first, *(f"    {one}" for one in more)]
    return lines


def _members(plan: str) -> dict[str, list[str]]:
    """Mode and digest of the members of a plan, by escaped path; install.sh has a diff of its own."""
    found = [line.split(" ")[1:] for line in plan.splitlines() if line.startswith("member ")]
    return {path: what for *what, path in found if path != "install.sh"}


def _readable(field: str) -> str:
    try:
        text = unescape_text(field)
    except ValueError:
        return field
    return text if text.replace("\n", "").replace("\t", "").isprintable() else field


def _printable(text: str) -> str:
    """File names may hold what a terminal obeys, or what is no text at all."""
    return text if text.isprintable() else escape_text(text)


def _harmless(line: str) -> str:
    return "".join(one if one.isprintable() or one == "\t" else "?" for one in line)
