"""diff ID: what a migration, or a command under `capture`, changed, and who, for people: by package and directory.
diff --raw ID: the same from the records, line by line, for programs. Without a lock: records are never changed.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.ids import capture_name
from pyinfra_overlaymig.format.paths import CAPTURES, MIGRATIONS
from pyinfra_overlaymig.runner import files, summary
from pyinfra_overlaymig.runner.say import answer, harmless, invalid, usage

_LISTS = "system-migrate status lists the migrations"


def main(arguments: list[str]) -> int:
    raw = arguments[:1] == ["--raw"]
    ids = arguments[1:] if raw else arguments
    if len(ids) != 1:
        raise usage("diff takes one id", "system-migrate diff 20240206-001_add_postgresql")
    id = ids[0]
    if not capture_name(id):
        raise invalid(f"'{id}' is no id", _LISTS)
    places = [f"{top}/{id}" for top in (MIGRATIONS, CAPTURES) if os.path.isfile(f"{top}/{id}/record")]
    if not places:
        raise invalid(f"there is no record of {id}", _LISTS)
    record, changes, who = (files.read(f"{places[0]}/{name}") for name in ("record", "changes.list", "who.list"))
    if raw:
        answer(f"{_marked('record', record)}{_marked('change', changes)}{who}end\n")
    else:
        answer(harmless(summary.text(id, record, changes, who)))
    return 0


def _marked(word: str, text: str) -> str:
    """Each line with ``word`` before it."""
    body = text.removesuffix("\n")
    return f"{word} {body}\n".replace("\n", f"\n{word} ", body.count("\n")) if text else ""
