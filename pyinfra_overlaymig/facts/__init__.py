"""The only place that reads machines; nothing here changes them."""

from pyinfra_overlaymig.facts.drift import Drift
from pyinfra_overlaymig.facts.migration import MigrationApplied, MigrationTrace
from pyinfra_overlaymig.facts.status import MachineStatus, Migrations, OverlayLayers, S6Services

__all__ = [
    "Drift",
    "MachineStatus",
    "MigrationApplied",
    "MigrationTrace",
    "Migrations",
    "OverlayLayers",
    "S6Services",
]
