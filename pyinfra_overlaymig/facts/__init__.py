"""Facts: the only part that reads machines; all but the trace are views of one status."""

from __future__ import annotations

from pyinfra_overlaymig.facts.migration import MigrationTrace
from pyinfra_overlaymig.facts.status import (
    MachineStatus,
    MigrationApplied,
    Migrations,
    OverlayLayers,
    S6Services,
)

__all__ = [
    "MachineStatus",
    "MigrationApplied",
    "MigrationTrace",
    "Migrations",
    "OverlayLayers",
    "S6Services",
]
