"""What this machine lacks of what the runner needs, looked for in the base, whatever root the caller is in: a layer may
have all of it, and is not there when the machine is to be helped.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format import needs
from pyinfra_overlaymig.format.paths import BASE, DATA, RUN, STAGING
from pyinfra_overlaymig.runner import base, files, linux, mountinfo, mounts, spawn, store


def missing() -> list[str]:
    """Names what is missing; nothing on a machine that has all. For `status`: it looks, and tries nothing."""
    found = list(map(str, needs.missing_programs(root())))
    if lacking := needs.missing_python():
        found.append(lacking)
    if not _has_overlay():
        found.append(needs.OVERLAY)
    return found


def root() -> str:
    """Where the base is, for this process; empty where it is the root."""
    return BASE if not base.inside() and mountinfo.is_mount(BASE) else ""


def booted() -> bool:
    """Whether the running root is a generation's, or the base under an upper: one that the runner has switched to."""
    mount = mountinfo.at("/", 1)
    there = base.inside() or bool(root())
    return there and mount is not None and mount.kind == "overlay" and files.there(f"{RUN}/running")


def unfit(*, is_booted: bool) -> needs.Unfit | None:
    """Why no migration can be applied here, whatever it is; nothing on a machine that will do."""
    if not os.path.isdir(DATA):
        return needs.NO_DATA
    if linux.filesystem_type(DATA) == linux.OVERLAYFS_MAGIC:
        return needs.NO_VOLUME
    if is_booted:
        return None
    return needs.base_alone(current) if (current := store.current()) else needs.NOT_BOOTED


def hint(lacking: list[str]) -> str:
    """What to do about what is missing: what is installed into a running generation does not get into its base."""
    packages = needs.packages(lacking)
    what = f"with {', '.join(packages)}" if packages else "on a kernel that has it"
    if booted():
        return f"rebuild the image {what}: the base of a machine that was booted by the runner is not written"
    return f"install {', '.join(packages)} in the base image" if packages else f"run the machine {what}"


def probe() -> list[str]:
    """Tries what cannot be looked up, and names what does not work; nothing of it stays."""
    if not os.path.isdir(STAGING):
        return []
    # Recovery sweeps what has such a name, once its process is gone.
    directory = f"{STAGING}/.incoming.{os.getpid()}"
    told, tells = os.pipe()
    child = spawn.fork(lambda: _report(directory, tells))
    os.close(tells)
    with open(told, encoding="utf-8", errors="surrogateescape") as answers:
        trouble = answers.read()
    spawn.wait(child)
    files.drop(directory)
    return trouble.splitlines()


def _report(directory: str, tells: int) -> int:
    """In a mount namespace that goes with this process, and all that is mounted in it."""
    step = "a mount namespace of its own"
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
        step = "an overlay whose upper directory is on /data"
        _overlay(directory)
        step = "a deletion in that overlay"
        os.unlink(f"{directory}/root/below")
        step = "an attribute of a file on /data"
        os.setxattr(f"{directory}/upper", "trusted.overlaymig.probe", b"1")
    except OSError as error:
        os.write(tells, f"{step} ({error.strerror})\n".encode())
    return 0


def _overlay(directory: str) -> None:
    files.make_dirs(*(f"{directory}/{name}" for name in ("lower", "upper", "work", "root")))
    files.mark(f"{directory}/lower/below")
    mounts.mount_over(directory, "root")


def _has_overlay() -> bool:
    if "\toverlay\n" in files.read("/proc/filesystems"):
        return True
    return spawn.run(["modprobe", "overlay"], quiet=True) == 0
