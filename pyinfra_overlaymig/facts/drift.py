"""Reads what was changed on a machine outside of migrations; it must change nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase, FactProcessError, StringCommand

from pyinfra_overlaymig.format.paths import PROGRAM


@dataclass(frozen=True)
class Change:
    """One path of drift. ``path`` is absolute, blanks and the like escaped; ``size`` in bytes, of files."""

    path: str
    what: str
    kind: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "what": self.what, "kind": self.kind, "size": self.size}


class Drift(FactBase[list[Change] | None]):
    """
    Returns what was changed outside of migrations, per path; None if unknown, empty without a runner.

    What is nobody's (caches, logs, who logged in, sockets of programs that have ended) is left out.

    + ``what`` is added, changed, metadata (mode, owner, times, attributes) or deleted
    + ``kind`` as of find(1): f d l …, ``-`` for what is deleted

    **Example:**

    .. code:: python

        from pyinfra_overlaymig.facts import Drift

        drift = host.get_fact(Drift)

    .. code:: json

        [{"path": "/etc/motd", "what": "changed", "kind": "f", "size": 286}]
    """

    def command(self) -> StringCommand:
        # The last line tells an empty answer from none: pyinfra hands an empty one over as the default.
        return StringCommand(
            f"if [ -x {PROGRAM} ]; then {PROGRAM} drift --json && echo end; else echo '[]'; echo end; fi"
        )

    @staticmethod
    def default() -> list[Change] | None:
        return None

    def process(self, output: list[str]) -> list[Change] | None:
        *lines, end = output
        if end != "end":
            raise FactProcessError("the list of drift has no end")
        try:
            return [_change(one) for one in json.loads("\n".join(lines))]
        except (ValueError, KeyError, TypeError) as error:
            raise FactProcessError(f"this is no list of drift: {error}") from error


def _change(found: dict[str, Any]) -> Change:
    return Change(str(found["path"]), str(found["what"]), str(found["kind"]), int(found["size"]))
