"""Brings machines to every migration of the folder, in order."""

from pathlib import Path

from pyinfra_overlaymig.operations import machine_prepared, migration_applied, migrations_in

machine_prepared(name="Prepare the machine")

for migration in migrations_in(Path(__file__).parent / "migrations"):
    migration_applied(name=f"Apply {migration.id}", migration=migration.folder)
