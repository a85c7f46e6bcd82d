"""Brings nginx, and whatever it depends on, to machines."""

from pathlib import Path

from pyinfra_overlaymig.operations import machine_prepared, migration_applied, migrations_in

FOLDER = Path(__file__).parent / "migrations"

machine_prepared(name="Prepare the machine")

for migration in migrations_in(FOLDER, "20240502-001_add_nginx"):
    migration_applied(name=f"Apply {migration.id}", migration=migration.folder)
