"""Brings machines back to a generation: pyinfra INVENTORY deploys/rollback.py --data generation=3 (or an id)."""

from pyinfra import host

from pyinfra_overlaymig.operations import generation_active

generation_active(name=f"Go to {host.data.generation}", generation=host.data.generation)
