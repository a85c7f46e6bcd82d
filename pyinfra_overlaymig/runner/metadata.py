"""metadata.json: the index of all migrations, rendered from their folders; no record is read that did not change
since.
"""

from __future__ import annotations

import json

from pyinfra_overlaymig.format import FORMAT
from pyinfra_overlaymig.format.paths import MIGRATIONS
from pyinfra_overlaymig.runner import files, migrations

PATH = f"{MIGRATIONS}/metadata.json"


def write() -> None:
    """Renders it anew."""
    document = {"format": FORMAT, "migrations": migrations.all_of_them()}
    files.write_file(PATH, json.dumps(document, separators=(",", ":")) + "\n", 0o644)
