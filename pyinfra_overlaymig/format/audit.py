"""What a record says of audit: whether a session was watched, and how much of it was seen."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra_overlaymig.format import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

KEYS: Final = ("audit", "events", "lost", "unexplained")
ON: Final = "on"


class Audit(NamedTuple):
    """``state``: `on`, or why it was not watched. The numbers are those of a session whose records were read.

    ``lost``: records that the kernel could not deliver, None where that is unknown.
    """

    state: str
    events: int | None = None
    lost: int | None = None
    unexplained: int | None = None

    def pairs(self) -> list[tuple[str, object]]:
        """Key and value of its lines in a record."""
        found: list[tuple[str, object]] = [("audit", self.state)]
        if self.events is not None:
            found += [("events", self.events), ("lost", "unknown" if self.lost is None else self.lost)]
            found.append(("unexplained", self.unexplained or 0))
        return found


def parse(found: Mapping[str, str]) -> Audit | None:
    """What the values of a record say by key, None where it says nothing of audit."""
    if "audit" not in found:
        return None
    if not found.get("events"):
        return Audit(found["audit"])
    lost = found.get("lost", "unknown")
    return Audit(
        found["audit"],
        lines.number(found["events"], "events"),
        None if lost == "unknown" else lines.number(lost, "lost"),
        lines.number(found.get("unexplained", "") or "0", "unexplained"),
    )
