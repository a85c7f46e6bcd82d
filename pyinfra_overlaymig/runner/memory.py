"""What a machine has in memory because it was given nothing better: /run, and /data where that is no volume.

A container's own /run is part of its image's root, and would stay behind at a switch. Its own /data lies on an overlay,
which another overlay takes no upper directory from.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import DATA
from pyinfra_overlaymig.runner import copies, files, linux, mountinfo
from pyinfra_overlaymig.runner.say import warn

_RUN = "/run"
_HERE = "/dev/.system-migrate.memory"


def ensure() -> None:
    """At boot, before anything else is mounted. Can be done again."""
    if not mountinfo.is_mount(_RUN):
        _mount(_RUN)
    if os.path.isdir(DATA) and not mountinfo.is_mount(DATA) and linux.filesystem_type(DATA) == linux.OVERLAYFS_MAGIC:
        warn(f"{DATA} is no volume: what is there is in memory, and nothing of it outlives this container")
        _mount(DATA)


def _mount(place: str) -> None:
    """With what the image has there; in place when it is whole."""
    files.make_dirs(_HERE)
    linux.mount("tmpfs", _HERE, "tmpfs", linux.MS_NOSUID if place == _RUN else 0, "mode=755")
    for name in files.names(place):
        copies.copy_tree(f"{place}/{name}", f"{_HERE}/{name}")
    linux.mount(_HERE, place, flags=linux.MS_BIND)
    linux.umount(_HERE)
    os.rmdir(_HERE)
