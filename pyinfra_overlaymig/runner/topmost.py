"""What the current stack gives a directory as its metadata, without a mount: that of the topmost layer that has it."""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import LAYERS
from pyinfra_overlaymig.runner import files, store


def directory(path: str) -> str:
    """Where the relative ``path`` is a directory: in the topmost layer, else in the base. Empty: nowhere."""
    for layer in reversed(store.stack()):
        place = f"{LAYERS}/{layer}/{path}"
        if files.plain_dir(place):
            return place
        if files.there(place):
            # Something else hides it, a whiteout maybe.
            return ""
    return f"/{path}" if os.path.isdir(f"/{path}") else ""
