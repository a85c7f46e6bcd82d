"""How a migration is applied, which is no part of what it is: times, retries, drift, audit, snapshot, order."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import lines, rules
from pyinfra_overlaymig.format.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST_CONFIRM = 999
"""Seconds that a machine waits for a new connection, and nobody else changes it."""
_RETRIES = 1000
_READY = 60
_RESTART = "changed"


class Limits(NamedTuple):
    """Times in seconds, from 1 to a day; ``verify_retries`` from 0 to 1000.

    ``drift``: what is done about drift in its way. ``audit``: `required` where it must not run unwatched.
    ``strict_order``: refused where one with a newer id is applied.
    ``ready``: by service, how long it may take to be ready. ``restarts``: by service, whether a switch restarts it.
    """

    timeout: int = 1800
    verify_timeout: int = 60
    verify_retries: int = 0
    drift: str = "refuse"
    audit: str = "wanted"
    snapshot: bool = False
    ready: Mapping[str, int] = {}
    restarts: Mapping[str, str] = {}
    strict_order: bool = False

    def ready_timeout(self, service: str) -> int:
        """Seconds that ``service`` may take to be ready."""
        return self.ready.get(service, _READY)

    def restart(self, service: str) -> str:
        """Whether a switch restarts ``service``: always, changed or never."""
        return self.restarts.get(service, _RESTART)


def text(limits: Limits) -> str:
    """The file that ``limits`` are."""
    return lines.join(_pairs(limits))


def _pairs(limits: Limits) -> Iterator[tuple[str, object]]:
    yield "timeout", limits.timeout
    yield "verify-timeout", limits.verify_timeout
    yield "verify-retries", limits.verify_retries
    yield "drift", limits.drift
    yield "audit", limits.audit
    yield "snapshot", "yes" if limits.snapshot else "no"
    yield "strict-order", "yes" if limits.strict_order else "no"
    for name in sorted(limits.ready):
        yield "ready-timeout", f"{name} {limits.ready[name]}"
    for name in sorted(limits.restarts):
        yield "restart", f"{name} {limits.restarts[name]}"


def parse(text_: str) -> Limits:
    """The limits that ``text_`` sets; FormatError names what is wrong with them. What it leaves out has its default."""
    once: dict[str, str] = {}
    ready: dict[str, int] = {}
    restarts: dict[str, str] = {}
    for key, value in lines.pairs(lines.whole(text_)):
        if key == "ready-timeout":
            name, rest = _of_service(key, value, ready)
            ready[name] = lines.number(rest, f"the limit {key} of {name}", 1, rules.DAY)
        elif key == "restart":
            name, rest = _of_service(key, value, restarts)
            restarts[name] = lines.one_of(rest, f"the limit {key} of {name}", rules.RESTART)
        elif key not in _KNOWN:
            raise FormatError(f"{key!r} is no limit")
        elif key in once:
            raise FormatError(f"the limit {key} is there twice")
        else:
            once[key] = value
    default = Limits()
    return Limits(
        _number(once, "timeout", default.timeout, 1, rules.DAY),
        _number(once, "verify-timeout", default.verify_timeout, 1, rules.DAY),
        _number(once, "verify-retries", default.verify_retries, 0, _RETRIES),
        lines.one_of(once.get("drift", default.drift), "the limit drift", rules.DRIFT),
        lines.one_of(once.get("audit", default.audit), "the limit audit", rules.AUDIT),
        _truth(once, "snapshot"),
        ready,
        restarts,
        _truth(once, "strict-order"),
    )


_KNOWN = ("timeout", "verify-timeout", "verify-retries", "drift", "audit", "snapshot", "strict-order")


def _truth(once: Mapping[str, str], key: str) -> bool:
    return lines.one_of(once.get(key, "no"), f"the limit {key}", ("yes", "no")) == "yes"


def _number(once: Mapping[str, str], key: str, default: int, lowest: int, highest: int) -> int:
    return lines.number(once[key], f"the limit {key}", lowest, highest) if key in once else default


def _of_service(key: str, value: str, known: Mapping[str, object]) -> tuple[str, str]:
    name, _, rest = value.partition(" ")
    if not rules.valid_service(name):
        raise FormatError(f"the limit {key} is of {name!r}, which is no service name")
    if name in known:
        raise FormatError(f"the limit {key} of {name} is there twice")
    return name, rest
