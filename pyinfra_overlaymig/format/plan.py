"""A plan: what a migration is, in the one form that its digest covers. FORMAT.md, "Plan", has the lines."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import FORMAT, lines, octal, rules
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.ids import why_no_id
from pyinfra_overlaymig.format.paths import SHARED, is_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

SCRIPTS: Final = ("install.sh", "verify.sh")
FILES: Final = "files/"
_BITS = "01234567"
_HASH = 64
_WORD = 16
_ONCE = ("format", "id", "state-auto", "local")


class Setting(NamedTuple):
    """A key of a service and its value."""

    service: str
    key: str
    value: str


class Member(NamedTuple):
    """A regular file of a migration; ``mode`` in four octal digits, ``path`` as in its folder."""

    mode: str
    sha256: str
    path: str


class Link(NamedTuple):
    """A symbolic link under `files/`; its target is text and is never followed."""

    target: str
    path: str


class Plan(NamedTuple):
    """All that shapes the result of a migration. Nothing in it is escaped; bytes that are no UTF-8 stand as surrogates.

    ``local``: made on the machine, and so not in the order of a folder's migrations. ``state_auto``: new directories of
    /var/lib that belong to an account become state.
    """

    id: str
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    state_links: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    local: bool = False
    state_auto: bool = False
    members: tuple[Member, ...] = ()
    links: tuple[Link, ...] = ()


def text(plan: Plan) -> str:
    """The canonical form; its SHA-256 is the migration's digest."""
    return "".join(f"{line}\n" for line in _lines(plan))


def content(text_: str) -> str:
    """A word for what a migration is, whatever it is called: of the SHA-256 of its plan's text without the id."""
    # Here, as it is only needed for what has changed.
    import hashlib

    kept = (line for line in lines.split(text_) if not line.startswith("id "))
    return hashlib.sha256("\n".join(kept).encode("utf-8", "surrogateescape")).hexdigest()[:_WORD]


def _lines(plan: Plan) -> Iterator[str]:
    escape = octal.escape_text
    yield f"format {FORMAT}"
    yield f"id {plan.id}"
    for key, values in (
        ("depends", plan.depends),
        ("conflicts", plan.conflicts),
        ("state", plan.state),
        ("state-link", plan.state_links),
        ("stop", plan.stop),
    ):
        yield from sorted(f"{key} {escape(value)}" for value in values)
    yield from sorted(f"service {name}" for name in plan.services)
    yield from sorted(f"service-set {one.service} {one.key} {escape(one.value)}" for one in plan.settings)
    if plan.local:
        yield "local yes"
    if plan.state_auto:
        yield "state-auto yes"
    yield from sorted(f"member {one.mode} {one.sha256} {escape(one.path)}" for one in plan.members)
    yield from sorted(f"link {escape(one.target)} {escape(one.path)}" for one in plan.links)


def parse(text_: str) -> Plan:
    """The plan that ``text_`` is the canonical form of; FormatError where it is of none, or of one that may not be."""
    plan = read(text_)
    _check(plan)
    # Two texts of one plan would have two digests.
    if text(plan) != text_:
        raise FormatError("the plan is not in its canonical form")
    return plan


def read(text_: str) -> Plan:
    """The plan of a record: it was applied when something else may have been allowed, and has to be got rid of."""
    found = _collect(lines.whole(text_))
    return Plan(
        id=found["id"][0] if found["id"] else "",
        depends=tuple(found["depends"]),
        conflicts=tuple(found["conflicts"]),
        state=tuple(map(_unescaped, found["state"])),
        state_links=tuple(map(_unescaped, found["state-link"])),
        stop=tuple(map(_unescaped, found["stop"])),
        services=tuple(found["service"]),
        settings=tuple(map(_setting, found["service-set"])),
        local=found["local"] == ["yes"],
        state_auto=found["state-auto"] == ["yes"],
        members=tuple(map(_member, found["member"])),
        links=tuple(map(_link, found["link"])),
    )


def _collect(text_: str) -> dict[str, list[str]]:
    known = ("depends", "conflicts", "state", "state-link", "stop", "service", "service-set", "member", "link")
    found: dict[str, list[str]] = {key: [] for key in (*_ONCE, *known)}
    for key, value in lines.pairs(text_):
        if key not in found:
            raise FormatError(f"the plan has a line of {key!r}, which is unknown")
        found[key].append(value)
    if found["format"] != [str(FORMAT)]:
        raise FormatError(f"the plan has format {' '.join(found['format'])!r}, this program reads {FORMAT}")
    return found


def _unescaped(field: str) -> str:
    try:
        return octal.unescape_text(field)
    except ValueError as error:
        raise FormatError(f"the plan has {field!r}, which is no field of one") from error


def _words(value: str, count: int) -> list[str]:
    words = value.split(" ")
    if len(words) != count:
        raise FormatError(f"the plan has a line of {len(words)} fields instead of {count}: {value!r}")
    return words


def _setting(value: str) -> Setting:
    service, key, setting = _words(value, 3)
    return Setting(service, key, _unescaped(setting))


def _member(value: str) -> Member:
    mode, sha256, path = _words(value, 3)
    return Member(mode, sha256, _unescaped(path))


def _link(value: str) -> Link:
    target, path = _words(value, 2)
    return Link(_unescaped(target), _unescaped(path))


def _check(plan: Plan) -> None:
    for id in (plan.id, *plan.depends, *plan.conflicts):
        if why := why_no_id(id):
            raise FormatError(f"{id!r} in the plan is no migration id: {why}")
    _each((*plan.stop, *plan.services), rules.valid_service, "is no service name")
    for values in (plan.depends + plan.conflicts, plan.stop, plan.services):
        if len(set(values)) != len(values):
            raise FormatError(f"the plan says one thing twice: {next(one for one in values if values.count(one) > 1)}")
    if plan.id in plan.depends + plan.conflicts:
        raise FormatError(f"the plan of {plan.id} depends on itself, or conflicts with itself")
    _check_state(plan)
    for one in plan.settings:
        if one.service not in plan.services or one.key not in rules.SETTINGS:
            raise FormatError(f"the plan sets {one.key!r} of service {one.service!r}, which cannot be")
    _check_files(plan)


def _each(values: tuple[str, ...], valid: Callable[[str], bool], what: str) -> None:
    for value in values:
        if not valid(value):
            raise FormatError(f"{value!r} in the plan {what}")


def _check_state(plan: Plan) -> None:
    for path in plan.state:
        trouble = rules.state_trouble(path)
        if trouble or path != rules.state_path(path):
            raise FormatError(trouble[0] if trouble else f"state path {path!r} is not in its plain form")
    brought = [one.path for one in plan.members] + [one.path for one in plan.links]
    for path in SHARED:
        if path in plan.state and any(is_below(one, f"files{path}") for one in brought):
            raise FormatError(rules.shared_trouble(path, "the migration itself")[0])
    over = rules.overlap(plan.state)
    if over:
        raise FormatError(f"state path {over[0]!r} and {over[1]!r} overlap")
    for path in plan.state_links:
        if plan.state_links.count(path) > 1 or path not in plan.state:
            raise FormatError(f"{path!r} is a state link and no state path, or one twice")


def _is_mode(text: str) -> bool:
    """Permission bits; others are for the install script to set."""
    return len(text) == len("0644") and text[0] == "0" and not text.strip(_BITS)


def _check_files(plan: Plan) -> None:
    for one in plan.members:
        if not _is_mode(one.mode) or len(one.sha256) != _HASH or one.sha256.strip("0123456789abcdef"):
            raise FormatError(f"the plan has a mode or digest of {one.path!r} that cannot be")
        if one.path not in SCRIPTS and not _is_file(one.path):
            raise FormatError(f"{one.path!r} in the plan is no part of a migration")
    for link in plan.links:
        if not _is_file(link.path) or not link.target or "\0" in link.target:
            raise FormatError(f"{link.path!r} in the plan cannot be a link")
    _check_places([one.path for one in plan.members] + [link.path for link in plan.links])


def _is_file(path: str) -> bool:
    return path.startswith(FILES) and rules.inside(path)


def _check_places(paths: list[str]) -> None:
    """Each file has a place of its own, below what are directories."""
    taken = set(paths)
    if SCRIPTS[0] not in taken:
        raise FormatError(f"the plan has no {SCRIPTS[0]}")
    if len(taken) != len(paths):
        raise FormatError("the plan has two files of one path")
    for path in paths:
        above = path.rpartition("/")[0]
        while above:
            if above in taken:
                raise FormatError(f"{path!r} in the plan lies below what is no directory")
            above = above.rpartition("/")[0]
