"""Brings a whole stack to machines: PostgreSQL, Redis, nginx, the worker, and what they depend on, in order."""

from pathlib import Path

from pyinfra_overlaymig.operations import machine_prepared, migration_applied, migrations_in

FOLDER = Path(__file__).parent / "migrations"
WANTED = (
    "20240206-001_add_postgresql",
    "20240301-001_add_build_tools",
    "20240501-001_add_redis",
    "20240502-001_add_nginx",
    "20240504-001_add_worker",
)

machine_prepared(name="Prepare the machine")

for migration in migrations_in(FOLDER, *WANTED):
    migration_applied(name=f"Apply {migration.id}", migration=migration.folder)
