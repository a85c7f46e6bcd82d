"""What a path means in a root that is not this process's: links are followed as if that root were `/`, and never out
of it.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_LINKS = 40


def resolve(root: str, path: str) -> str:
    """Where ``path`` (absolute, as seen in ``root``) lies, as this process sees it; what is missing stays as it is
    named. What /proc says of processes is of this one, and means nothing there.
    """
    return root + follow(path, lambda place: "" if place.startswith("/proc/") else link(root + place))


def link(path: str) -> str:
    """What the link at ``path`` says, empty where none is."""
    return os.readlink(path) if os.path.islink(path) else ""


def follow(path: str, link_at: Callable[[str], str]) -> str:
    """The same in any tree of which somebody knows the links: ``link_at`` answers with nothing where none is."""
    left, found, followed = path.split("/"), [""], 0
    left.reverse()
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            found = found[:-1] or [""]
            continue
        target = link_at(f"{'/'.join(found)}/{name}")
        if not target:
            found.append(name)
            continue
        followed += 1
        if followed > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            found = [""]
        left += reversed(target.split("/"))
    return "/".join(found)
