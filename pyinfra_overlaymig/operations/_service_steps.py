"""Which steps of service.sh bring a service to what is wanted: pure functions over what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Final

from pyinfra_overlaymig.facts.service import S6Service, definition
from pyinfra_overlaymig.migration.services import Rendered

_STEPS: Final = {
    "define": "is defined", "up": "starts", "down": "stops", "restart": "restarts",
    "signal": "gets a signal", "enable": "will start at boot", "disable": "will not start at boot",
    "remove": "is removed", "pause": "{}, which needs it, stops", "resume": "{} starts again",
    "release": "{} starts again",
}  # fmt: skip
"""What each step of service.sh means, for reading."""


def in_words(step: str) -> str:
    word, _, argument = step.partition(" ")
    return _STEPS[word].format(argument)


def steps_for(
    found: S6Service | None, files: tuple[Rendered, ...], *, running: bool | None, enabled: bool | None, kept: bool
) -> Iterator[str]:
    """What service.sh has to do, in its words."""
    defines = bool(files) and not _is_defined(found, definition(files), kept=kept)
    if defines:
        yield f"define {'same' if running is None else 'up' if running else 'down'}"
    if running is not None and (defines or not found or not _runs(found, running)):
        yield "up" if running else "down"
    before = found.enabled if found else True
    wanted = before if enabled is None else enabled
    # Where none is kept there is one `down` file for the boot and for s6-supervise, and a definition sets it.
    if wanted != before or (defines and not kept):
        yield "enable" if wanted else "disable"


def _is_defined(found: S6Service | None, wanted: str, *, kept: bool) -> bool:
    return bool(found and found.supervised and found.definition == wanted and (not kept or found.kept == wanted))


def _runs(found: S6Service, running: bool) -> bool:
    """Whether it is in the wanted state, and wanted by s6 to be there."""
    return found.wanted_up is running and found.up is running and (found.ready or not running)


def if_it_ran(found: S6Service | None, steps: list[str], *, restarted: bool, signal: str | None) -> Iterator[str]:
    """What is to be done to a service that runs and that the steps so far leave running."""
    if not found or not found.up or not found.wanted_up or any(step.startswith(("define", "down")) for step in steps):
        return
    if restarted:
        yield "restart"
    elif signal:
        yield f"signal {signal}"


def with_what_needs_it(service: str, services: Mapping[str, S6Service], steps: list[str]) -> list[str]:
    """``steps``, before which all that needs the service stops, if they stop it; where it runs again, so do those."""
    found = services.get(service)
    words = {step.partition(" ")[0] for step in steps}
    if not found or not found.up or not words & {"define", "down", "restart", "remove"}:
        return steps
    needing = [name for name in _needing(service, services) if services[name].wanted_up]
    comes_back = not words & {"down", "remove"} and (found.wanted_up or "up" in words)
    again = [f"{'resume' if services[name].ready else 'release'} {name}" for name in reversed(needing) if comes_back]
    return [*(f"pause {name}" for name in needing), *steps, *again]


def _needing(service: str, services: Mapping[str, S6Service]) -> list[str]:
    """The services that need it, directly or not, in the order in which they have to stop."""
    found = {service}
    while more := {name for name, one in services.items() if found & set(one.needs)} - found:
        found |= more
    order = TopologicalSorter({name: found & set(services[name].needs) for name in found}).static_order()
    return [name for name in reversed(list(order)) if name != service]
