"""The base view: a read-only mount of the machine's own image root, in which every verb that writes runs.

So it works with the base's programs however broken the layers are:

  /run/system-migrate        bound on itself and unbindable: `mount --rbind /run` leaves all below it out
  /run/system-migrate/base   the base, with /dev /proc /sys /run /data; overlays take it as their lowest lowerdir

From inside the view, LIVE reaches the running root: process 1 follows every pivot_root(2) of its namespace.
"""

from __future__ import annotations

import os
import sys

from pyinfra_overlaymig.format.paths import BASE, DATA, OLD, RUN, SYSTEM
from pyinfra_overlaymig.runner import files, linux, mountinfo
from pyinfra_overlaymig.runner.linux import MS_BIND, MS_MOVE, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, MS_UNBINDABLE
from pyinfra_overlaymig.runner.say import unable

_ESSENTIAL = ("dev", "proc", "sys", "run", "data")
_TREES = ("dev", "sys")
"""Of these, what is mounted below them belongs to the view."""


def need_root() -> None:
    """Leaves with 111 unless this process may mount."""
    if os.geteuid() != 0:
        raise unable("this needs root", "log in as root, or use sudo")


def inside() -> bool:
    """Whether this process is in the view: whoever starts it there says so, or its root is that mount.

    A rescuer comes from outside, past a running root that has no shell.
    """
    if not sys._xoptions.get("inside"):  # noqa: SLF001 - documented as this implementation's
        view, here = mountinfo.at(BASE, 1), mountinfo.at("/")
        return view is not None and here is not None and view.id == here.id
    return True


def enter() -> None:
    """From here on, this process is in the base view."""
    need_root()
    if not mountinfo.is_mount(DATA) and not os.path.isdir(SYSTEM):
        raise unable("there is no /data", "mount the persistent volume at /data, then run system-migrate init")
    go_in()


def go_in() -> None:
    """As `enter`, also where there is nothing on /data yet."""
    if not inside():
        os.chroot(view())
        sys._xoptions["inside"] = "yes"  # noqa: SLF001 - as above
    os.chdir("/")


def view() -> str:
    """Where the view is; mounts it if this boot has none yet, which is its first verb."""
    # Where a switch was killed, it hangs in the old root still: one of the new root would be no view of the base.
    for place in (BASE, OLD + BASE):
        if mountinfo.is_mount(place):
            return place
    _make()
    return BASE


def _make() -> None:
    # pivot_root(2) and moving a mount both refuse where propagation is shared.
    linux.mount(None, "/", flags=MS_REC | MS_PRIVATE)
    files.make_dirs(RUN, mode=0o700)
    os.chmod(RUN, 0o700)
    if not mountinfo.is_mount(RUN):
        linux.mount(RUN, RUN, flags=MS_BIND)
    linux.mount(None, RUN, flags=MS_UNBINDABLE)
    files.make_dirs(BASE)
    _assemble(f"{RUN}/base.new")


def _assemble(new: str) -> None:
    """Complete before it is in place: a kill in between must not leave half a view that looks whole."""
    files.make_dirs(new)
    for mount in reversed(mountinfo.read()):
        if mount.place == new or mount.place.startswith(f"{new}/"):
            linux.umount(mount.place)
    linux.mount("/", new, flags=MS_BIND)
    linux.mount(None, new, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    for name in _ESSENTIAL:
        if not os.path.isdir(f"/{name}"):
            raise unable(f"the base has no /{name}", f"add 'mkdir -p /{name}' to the image")
        linux.mount(f"/{name}", f"{new}/{name}", flags=MS_BIND | (MS_REC if name in _TREES else 0))
    linux.mount(new, BASE, flags=MS_MOVE)


def identity(root: str = "") -> str:
    """Names the base by what it is made of; ``root``: where it is, empty inside the view."""
    import hashlib  # most verbs name no base

    digest = hashlib.sha256()
    for path in ("etc/os-release", "var/lib/dpkg/status"):
        try:
            with open(f"{root}/{path}", "rb") as file:
                digest.update(file.read())
        except FileNotFoundError:
            continue
    return digest.hexdigest()[:16]
