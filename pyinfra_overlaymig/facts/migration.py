"""What a machine recorded of an applied migration, to compare it with the folder."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand

_RECORDS = "/data/system/migrations"


@dataclass(frozen=True)
class Trace:
    """An applied migration as recorded: its plan and its install script, as text."""

    plan: str
    install_script: str

    def to_json(self) -> dict[str, str]:
        """For pyinfra's encoder."""
        return {"plan": self.plan, "install_script": self.install_script}


class MigrationTrace(FactBase[Trace | None]):
    """
    Returns the plan and the install script of a migration as they were applied; None if there is no record.

    + id: of the migration

    .. code:: python

        {"plan": "format 1\\nid 20240206-001_add_postgresql\\n…", "install_script": "#!/bin/sh\\n…"}
    """

    def command(self, id: str) -> StringCommand:
        folder = QuoteString(f"{_RECORDS}/{id}")
        # As base64: a script may hold any bytes.
        return StringCommand(
            "cd", folder, "2>/dev/null || exit 0;", "for file in manifest install_script.sh;",
            "do base64 -w 0 <$file; echo; done",
        )  # fmt: skip

    @staticmethod
    def default() -> Trace | None:
        return None

    def process(self, output: list[str]) -> Trace | None:
        plan, script = (base64.b64decode(line).decode(errors="replace") for line in output[:2])
        return Trace(plan, script)
