"""What the current stack gives a directory as its metadata, without a mount: that of the topmost layer that has it."""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.format.paths import LAYERS
from pyinfra_overlaymig.runner import files, rooted, store, trees


def directory(path: str) -> str:
    """Where the relative ``path`` is a directory: in the topmost layer, else in the base. Empty: nowhere."""
    place = _entry(path)
    return place if files.plain_dir(place) else ""


def file(path: str) -> str:
    """The same of a file."""
    place = _entry(path)
    return place if os.path.isfile(place) and not os.path.islink(place) else ""


def meant(path: str) -> str:
    """The relative ``path`` without links: where they lead."""
    return rooted.follow(f"/{path}", lambda place: rooted.link(_entry(place[1:])))[1:]


def is_closed(path: str) -> bool:
    """Whether a directory that holds the relative ``path`` lets nobody through."""
    holders = filter(None, map(directory, trees.parents(path)))
    return any(not os.lstat(one).st_mode & stat.S_IXOTH for one in holders)


def _entry(path: str) -> str:
    """The topmost one that anything has at ``path``, a whiteout too; nothing where what is above it hides it."""
    for top in (*(f"{LAYERS}/{layer}" for layer in reversed(store.stack())), ""):
        if files.there(f"{top}/{path}"):
            return f"{top}/{path}"
        if any(_hides(f"{top}/{above}") for above in trees.parents(path)):
            return ""
    return ""


def _hides(place: str) -> bool:
    """Whether what layers beneath have below it is not to be seen: it was removed, or made anew, with all it held."""
    return files.there(place) and (not files.plain_dir(place) or trees.is_opaque(place))
