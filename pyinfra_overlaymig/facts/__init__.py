"""The only place that reads machines; nothing here changes them."""

from pyinfra_overlaymig.facts.capture import AuditCapture
from pyinfra_overlaymig.facts.drift import Drift
from pyinfra_overlaymig.facts.migration import MigrationApplied, MigrationTrace
from pyinfra_overlaymig.facts.service import S6Services
from pyinfra_overlaymig.facts.status import MachineStatus, Migrations, OverlayLayers

__all__ = [
    "AuditCapture",
    "Drift",
    "MachineStatus",
    "MigrationApplied",
    "MigrationTrace",
    "Migrations",
    "OverlayLayers",
    "S6Services",
]
