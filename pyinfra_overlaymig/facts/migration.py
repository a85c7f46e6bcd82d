"""Reads what a machine knows about one migration; it must change nothing."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase, FactProcessError, QuoteString, StringCommand

from pyinfra_overlaymig.facts.status import read_status, status_command
from pyinfra_overlaymig.format.paths import MIGRATIONS


@dataclass(frozen=True)
class Trace:
    """What a machine recorded of a migration when it applied it."""

    plan: str
    install_script: str

    def to_json(self) -> dict[str, Any]:
        return {"plan": self.plan, "install_script": self.install_script}


class MigrationApplied(FactBase[bool | None]):
    """
    Returns whether a migration is applied, in whatever edition, and not rolled back; None if that is unknown.

    + id: the migration, as its folder is called

    **Example:**

    .. code:: python

        from pyinfra_overlaymig.facts import MigrationApplied

        if host.get_fact(MigrationApplied, id="20240206-001_add_postgresql"):
            ...

    .. code:: json

        true
    """

    def command(self, id: str) -> StringCommand:
        self.id = id
        return status_command()

    def process(self, output: list[str]) -> bool | None:
        status = read_status(output)
        record = status.migration(self.id)
        return (record is not None and record.active and record.status == "applied") if status.known else None


class MigrationTrace(FactBase[Trace | None]):
    r"""
    Returns the plan and the install script that a migration was applied with, None without any.

    + id: the migration, as its folder is called

    **Example:**

    .. code:: python

        from pyinfra_overlaymig.facts import MigrationTrace

        trace = host.get_fact(MigrationTrace, id="20240206-001_add_postgresql")

    .. code:: json

        {"plan": "format 1\nid 20240206-001_add_postgresql\n", "install_script": "#!/bin/sh\n"}
    """

    def command(self, id: str) -> StringCommand:
        folder = QuoteString(f"{MIGRATIONS}/{id}")
        return StringCommand(
            "if cd", folder, "2>/dev/null;",
            "then base64 -w 0 manifest && echo && base64 -w 0 install_script.sh && echo; fi",
        )  # fmt: skip

    def process(self, output: list[str]) -> Trace:
        try:
            plan, script = (base64.b64decode(line, validate=True) for line in output)
        except (ValueError, binascii.Error) as error:
            raise FactProcessError("the trace is not two lines of base64") from error
        return Trace(plan.decode("utf-8", "replace"), script.decode("utf-8", "replace"))
