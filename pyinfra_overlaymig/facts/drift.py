"""Reads what was changed on a machine outside of migrations; it must change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase, FactProcessError, StringCommand

from pyinfra_overlaymig.format.paths import PROGRAM

_WORDS = {"A": "added", "C": "changed", "M": "metadata", "D": "deleted"}
_FIELDS = 9


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
        return StringCommand(f"if [ -x {PROGRAM} ]; then {PROGRAM} drift && echo end; else echo end; fi")

    @staticmethod
    def default() -> list[Change] | None:
        return None

    def process(self, output: list[str]) -> list[Change] | None:
        *lines, end = output
        if end != "end":
            raise FactProcessError("the list of drift has no end")
        return [_change(line) for line in lines]


def _change(line: str) -> Change:
    words = line.split(" ")
    if len(words) < _FIELDS or words[0] not in _WORDS:
        raise FactProcessError(f"this is no line of drift: {line!r}")
    size = int(words[5]) if words[5].isdigit() else 0
    return Change(f"/{words[8]}", _WORDS[words[0]], words[1], size)
