"""Removes what a lab made: as the runner does, which goes into subvolumes, and to which nothing is immovable.

What somebody mounted there keeps all that it holds: it is unmounted. A mount point itself is emptied.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.runner import linux, mountinfo, removal

OF_A_VOLUME = "lost+found"
"""What an ext4 has at its top, and nobody made."""


def remove_tree(path: Path) -> None:
    """Remove ``path`` with all below it."""
    top = path.parent.resolve() / path.name
    try:
        mounted = [one.place for one in mountinfo.read()]
        for place in sorted((one for one in mounted if one.startswith(f"{top}/")), reverse=True):
            linux.umount(place, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
        emptied = str(top) in mounted
        for one in [one for one in top.iterdir() if one.name != OF_A_VOLUME] if emptied else [top]:
            removal.remove_tree(str(one))
    except OSError as error:
        raise OverlaymigError(
            f"{error.filename} cannot be removed: {error.strerror}", hint="remove what holds it, and run this again"
        ) from error
