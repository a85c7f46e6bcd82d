"""Brings machines back to a generation: pyinfra INVENTORY deploys/rollback.py --data generation=3 (or an id).

With --data restore_state=yes, state goes back to the snapshots of the migrations that go.
"""

from pyinfra import host
from pyinfra.api import DeployError

from pyinfra_overlaymig.operations import generation_active

generation = host.data.get("generation")
if generation is None:
    raise DeployError("say which generation: --data generation=N (0 is the base alone), or the id of a migration")

generation_active(
    name=f"Go to {generation}", generation=generation, restore_state=host.data.get("restore_state", False)
)
