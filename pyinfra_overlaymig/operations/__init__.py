"""The only place that changes machines."""

from pyinfra_overlaymig.operations._folder import migrations_in
from pyinfra_overlaymig.operations.capture import audit_capture
from pyinfra_overlaymig.operations.generation import generation_active
from pyinfra_overlaymig.operations.machine import machine_prepared
from pyinfra_overlaymig.operations.migration import migration_applied
from pyinfra_overlaymig.operations.service import s6_service

__all__ = ["audit_capture", "generation_active", "machine_prepared", "migration_applied", "migrations_in", "s6_service"]
