"""What a path means in a root that is not this process's: links are followed as if that root were `/`, and never out
of it.
"""

from __future__ import annotations

import errno
import os

_MOST_LINKS = 40


def resolve(root: str, path: str) -> str:
    """Where ``path`` (absolute, as seen in ``root``) lies, as this process sees it; what is missing stays as it is
    named.
    """
    left, found, followed = path.split("/"), [""], 0
    left.reverse()
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            found = found[:-1] or [""]
            continue
        here = f"{root}{'/'.join(found)}/{name}"
        if not os.path.islink(here):
            found.append(name)
            continue
        followed += 1
        if followed > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(here)
        if target.startswith("/"):
            found = [""]
        left += reversed(target.split("/"))
    return root + "/".join(found)
