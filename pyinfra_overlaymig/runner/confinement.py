"""What keeps an install script in its stage though it is root: mounts that it cannot undo, capabilities that it lacks.

It is for mistakes first: a script that sets the clock, loads a module or configures the network would change the
machine whatever becomes of its stage. FORMAT.md, "Stage", has what is left to a script that wants out.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

from pyinfra_overlaymig.runner import linux, spawn
from pyinfra_overlaymig.runner.linux import CLONE_NEWNS, CLONE_NEWUSER, MNT_DETACH

_KEPT = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE"),
    *("NET_BIND_SERVICE", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_CHROOT", "SYS_ADMIN", "SYS_NICE", "SYS_RESOURCE"),
    *("MKNOD", "LEASE", "AUDIT_WRITE", "SETFCAP"),
)
"""What packages are installed with in a container too, and besides: SYS_ADMIN for namespaces and mounts of its own,
LINUX_IMMUTABLE for chattr, limits and priorities.

Not: SYS_MODULE, SYS_BOOT, SYS_TIME, SYS_RAWIO and NET_ADMIN, which are the machine's; SYS_PTRACE and DAC_READ_SEARCH,
which lead out of a namespace, by process 1 of the stage or by handle; AUDIT_CONTROL, which would end its capture.
"""
_LAST = 63
_NO_USERS = (errno.EINVAL, errno.ENOSPC, errno.EPERM, errno.EUSERS, errno.ENOSYS)
"""A kernel without user namespaces, or one that allows none."""


def enter(root: str) -> None:
    """This process, and whatever it starts, sees ``root`` and nothing else, and cannot take off what lies over it."""
    _become_root(root)
    _lock_mounts()
    kept = {linux.CAPABILITIES[name] for name in _KEPT}
    for number in range(_LAST + 1):
        # The kernel knows fewer.
        with suppress(OSError):
            if number not in kept:
                linux.drop_capability(number)


def _become_root(root: str) -> None:
    """In place of the root, not below it by chroot(2): from there the way out is known."""
    os.chdir(root)
    linux.unshare(CLONE_NEWNS)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # The runner's root is the base view; pivot_root(2) wants that of the namespace, which is where setns(2) goes.
    linux.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), CLONE_NEWNS)
    os.fchdir(here)
    os.close(here)
    linux.pivot_root(".", ".")
    linux.umount(".", MNT_DETACH)
    os.chdir("/")


def _lock_mounts() -> None:
    """The kernel locks the mounts of a namespace that is of a lesser user namespace: nobody in it, root neither, takes
    them away or makes them writable, or mounts a /proc or /sys that shows more. Root joins it without becoming lesser.
    """
    told, tells = os.pipe()

    def lesser() -> None:
        try:
            linux.unshare(CLONE_NEWUSER | CLONE_NEWNS)
        except OSError as error:
            if error.errno not in _NO_USERS:
                raise
            return
        os.write(tells, b".")
        signal.pause()

    child = spawn.fork(lesser)
    os.close(tells)
    if os.read(told, 1):
        namespace = os.open(f"/proc/{child.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        linux.setns(namespace, CLONE_NEWNS)
        os.close(namespace)
        os.chdir("/")
    os.close(told)
    os.kill(child.pid, signal.SIGKILL)
    spawn.wait(child)
