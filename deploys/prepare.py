"""Makes machines ready for migrations."""

from pyinfra_overlaymig.operations import machine_prepared

machine_prepared(name="Prepare the machine")
