"""Reaches what lies deeper than a name may be long: an upper's names are longer than those in the running root, and a
program that changes into each directory can make as deep a tree as it likes.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 3800
"""Bytes; the kernel takes 4095, and what is appended to a directory's name has to fit."""
_SURELY_FITS = _LONGEST // 4
"""Characters: none of them has more than four bytes."""
_NOTHING = "/proc/self/fd/none"
_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def fits(path: str) -> bool:
    """Whether ``path`` can be used as it is."""
    return len(path) <= _SURELY_FITS or len(os.fsencode(path)) <= _LONGEST


@contextmanager
def directory(path: str) -> Iterator[str]:
    """A name for the directory ``path`` that is short enough: itself, where it is; of nothing, where it has gone."""
    if fits(path):
        yield path
        return
    try:
        here = _open(path)
    except (FileNotFoundError, NotADirectoryError):
        yield _NOTHING
        return
    try:
        # Not the link itself.
        yield f"/proc/self/fd/{here}/."
    finally:
        os.close(here)


@contextmanager
def entry(path: str) -> Iterator[str]:
    """The same for any entry."""
    if fits(path):
        yield path
        return
    above, _, name = path.rpartition("/")
    with directory(above) as short:
        yield f"{short}/{name}"


def _open(path: str) -> int:
    """By as many hops as it takes. Below the first one, no link is followed: whoever made the tree may put one in."""
    here = -1
    for hop in _hops(path):
        try:
            below = os.open(hop, _FLAGS if here < 0 else _FLAGS | os.O_NOFOLLOW, dir_fd=None if here < 0 else here)
        finally:
            if here >= 0:
                os.close(here)
        here = below
    return here


def _hops(path: str) -> Iterator[str]:
    hop = ""
    for name in path.rstrip("/").split("/"):
        if hop and not fits(f"{hop}/{name}"):
            yield hop
            hop = name
        else:
            hop = f"{hop}/{name}" if hop or path.startswith("/") else name
    yield hop
