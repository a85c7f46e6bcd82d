"""What a stage sees of the kernel and of devices, /proc, /sys and /dev: to be read, and a few devices to be used.

What is done there nobody takes back. A stage's own file systems open no device, so that a node that a script makes is
a file of its layer and no way to a disk.
"""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.runner import files, linux, mountinfo, mounts
from pyinfra_overlaymig.runner.linux import MNT_DETACH, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC

_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr")
"""What of /proc is the machine's, and can be written."""
_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
}  # fmt: skip
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


def mount(root: str) -> None:
    """/proc, /sys and /dev of the stage at ``root``, in the namespaces that are its own."""
    linux.mount("proc", f"{root}/proc", "proc", _SAFE)
    for name in _PROC:
        if files.there(f"{root}/proc/{name}"):
            mounts.bind_read_only(f"{root}/proc/{name}", f"{root}/proc/{name}")
    linux.mount("/sys", f"{root}/sys", flags=MS_BIND | MS_REC)
    for one in mountinfo.read():
        # Control groups and debugfs among them are mounts of their own.
        if one.place == f"{root}/sys" or one.place.startswith(f"{root}/sys/"):
            linux.mount(None, one.place, flags=linux.MS_REMOUNT | MS_BIND | MS_RDONLY | _SAFE)
    _devices(f"{root}/dev")


def _devices(target: str) -> None:
    """A /dev with the nodes of the machine's, so that a script finds what there is; to be opened are the usual few."""
    linux.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755")
    for name, numbers in _DEVICES.items():
        _node(f"{target}/{name}", stat.S_IFCHR | 0o666, os.makedev(*numbers))
    usable = f"{target}/.usable"
    os.mkdir(usable)
    linux.mount(target, usable, flags=MS_BIND)
    linux.mount(None, target, flags=linux.MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NOEXEC | MS_NODEV)
    for name in _DEVICES:
        linux.mount(f"{usable}/{name}", f"{target}/{name}", flags=MS_BIND)
    linux.umount(usable, MNT_DETACH)
    os.rmdir(usable)
    _others(target)
    for name, leads in _LINKS.items():
        if not files.there(f"{target}/{name}"):
            os.symlink(leads, f"{target}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{target}/{name}")
    options = "newinstance,gid=5,mode=620,ptmxmode=666"
    linux.mount("devpts", f"{target}/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    linux.mount("tmpfs", f"{target}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def _others(target: str) -> None:
    for entry in os.scandir("/dev"):
        made = f"{target}/{entry.name}"
        if entry.name in ("ptmx", "pts", "shm") or files.there(made):
            continue
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(entry.path), made)
        elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            _node(made, found.st_mode, found.st_rdev)
            os.chown(made, found.st_uid, found.st_gid)


def _node(path: str, mode: int, device: int) -> None:
    os.mknod(path, mode, device)
    os.chmod(path, stat.S_IMODE(mode))
