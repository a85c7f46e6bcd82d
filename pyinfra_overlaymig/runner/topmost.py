"""What the current stack gives a directory as its metadata, without a mount: that of the topmost layer that has it."""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import LAYERS
from pyinfra_overlaymig.runner import files, store


def directory(path: str) -> str:
    """Where the relative ``path`` is a directory: in the topmost layer, else in the base. Empty: nowhere."""
    place = _entry(path)
    return place if files.plain_dir(place) else ""


def is_link(path: str) -> bool:
    """Whether the relative ``path`` is a link."""
    return os.path.islink(_entry(path))


def _entry(path: str) -> str:
    """The topmost one that anything has at ``path``, a whiteout too."""
    tops = (*(f"{LAYERS}/{layer}" for layer in reversed(store.stack())), "")
    return next((f"{top}/{path}" for top in tops if files.there(f"{top}/{path}")), "")
