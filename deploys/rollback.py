"""Brings machines back to a generation: pyinfra INVENTORY deploys/rollback.py --data generation=3 (or an id)."""

from pyinfra import host
from pyinfra.api import DeployError

from pyinfra_overlaymig.operations import generation_active

generation = host.data.get("generation")
if generation is None:
    raise DeployError("say which generation: --data generation=N (0 is the base alone), or the id of a migration")

generation_active(name=f"Go to {generation}", generation=generation)
