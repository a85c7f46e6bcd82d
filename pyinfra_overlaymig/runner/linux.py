"""The kernel's calls that `os` lacks, by ctypes; it imports nothing of ours and decides nothing."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_MOVE, MS_REC, MS_SILENT = 0x1000, 0x2000, 0x4000, 0x8000
MS_UNBINDABLE, MS_PRIVATE = 0x20000, 0x40000
MNT_DETACH, UMOUNT_NOFOLLOW = 0x2, 0x8
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
CLONE_NEWUSER = 0x10000000
CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
    "LINUX_IMMUTABLE": 9, "NET_BIND_SERVICE": 10, "NET_RAW": 13, "IPC_LOCK": 14, "IPC_OWNER": 15, "SYS_CHROOT": 18,
    "SYS_ADMIN": 21, "SYS_NICE": 23, "SYS_RESOURCE": 24, "MKNOD": 27, "LEASE": 28, "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip
"""The kernel's numbers of those that are named anywhere."""
FICLONE = 0x40049409
IN_MODIFY, IN_CREATE, IN_MOVED_TO, IN_DELETE, IN_ATTRIB = 0x2, 0x100, 0x80, 0x200, 0x4
IN_NONBLOCK, IN_CLOEXEC = 0o4000, 0o2000000
OVERLAYFS_MAGIC, BTRFS_MAGIC = 0x794C7630, 0x9123683E

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_CLOCK_MONOTONIC = 1
_TICK = 20_000_000
"""Nanoseconds."""
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "armv7l": 218, "i686": 217, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_KCMP = {"x86_64": 312, "aarch64": 272, "armv7l": 378, "i686": 349, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_VM = 1
_OPENAT2 = 437
_RESOLVE_NO_XDEV = 1

_libc = ctypes.CDLL(None, use_errno=True)


def oserror(what: str) -> OSError:
    """The error of the call that has just failed, with ``what`` it was about."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise oserror(what)
    return result


def _name(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). The options in ``data`` end at one page: longer ones the kernel would cut without a word."""
    if data is not None and len(os.fsencode(data)) >= os.sysconf("SC_PAGESIZE"):
        raise OSError(errno.E2BIG, "the options of a mount fill more than a page", target)
    result = _libc.mount(_name(source), _name(target), _name(kind), ctypes.c_ulong(flags), _name(data))
    _checked(result, target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(_name(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2): every process of the namespace whose root is the old one has the new one after it."""
    number = _PIVOT_ROOT[os.uname().machine]
    _checked(_libc.syscall(ctypes.c_long(number), _name(new), _name(old)), new)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int = 0) -> None:
    """setns(2)."""
    _checked(_libc.setns(descriptor, kind), "setns")


def syncfs(path: str) -> None:
    """Writes out the file system that ``path`` is on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _checked(_libc.syncfs(descriptor), path)
    finally:
        os.close(descriptor)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def enter(directory: int, name: str) -> int:
    """Opens the directory ``name`` of an open one; EBUSY where something is mounted there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    how = _OpenHow(flags, 0, _RESOLVE_NO_XDEV)
    number, size = ctypes.c_long(_OPENAT2), ctypes.c_size_t(ctypes.sizeof(how))
    found = int(_libc.syscall(number, directory, _name(name), ctypes.byref(how), size))
    if found < 0 and ctypes.get_errno() == errno.ENOSYS:
        return os.open(name, flags, dir_fd=directory)
    if found < 0 and ctypes.get_errno() == errno.EXDEV:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
    return _checked(found, name)


def exchange(one: str, other: str) -> None:
    """renameat2(2): both names change places."""
    result = _libc.renameat2(_AT_FDCWD, _name(one), _AT_FDCWD, _name(other), _RENAME_EXCHANGE)
    _checked(result, one)


def set_parent_death_signal(number: int) -> None:
    """This process gets signal ``number`` when the thread that made it ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def drop_capability(number: int) -> None:
    """Neither this process nor what it starts gets that capability back by executing a program."""
    _checked(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"capability {number}")


def same_memory(one: int, other: int) -> bool:
    """Whether two processes run in the same memory, by kcmp(2); not so where the kernel does not tell."""
    number = _KCMP[os.uname().machine]
    return int(_libc.syscall(ctypes.c_long(number), one, other, _KCMP_VM, 0, 0)) == 0


def filesystem_type(path: str) -> int:
    """The magic number of the file system that ``path`` is on, as statfs(2) tells it."""
    buffer = (ctypes.c_long * 32)()
    _checked(_libc.statfs(_name(path), buffer), path)
    return int(buffer[0]) & 0xFFFFFFFF


def inotify(path: str, mask: int) -> int:
    """A descriptor that becomes readable when what ``mask`` says happens at ``path``, and now and then besides.

    The kernel gives a user 128 of them, and all machines of a lab share these: where there is none left, it becomes
    readable every 20 ms. Whoever waits has to look anyway.
    """
    try:
        descriptor = _checked(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return _ticks()
    try:
        _checked(_libc.inotify_add_watch(descriptor, _name(path), mask), path)
    except OSError as error:
        os.close(descriptor)
        if error.errno != errno.ENOSPC:
            raise
        return _ticks()
    return descriptor


def _ticks() -> int:
    descriptor = _checked(_libc.timerfd_create(_CLOCK_MONOTONIC, IN_NONBLOCK | IN_CLOEXEC), "timerfd")
    # Seconds and nanoseconds of the interval, and of the first time.
    times = (ctypes.c_long * 4)(0, _TICK, 0, _TICK)
    _checked(_libc.timerfd_settime(descriptor, 0, times, None), "timerfd")
    return descriptor


def drain(descriptor: int) -> None:
    """Reads what a descriptor that does not block has, and forgets it."""
    try:
        while os.read(descriptor, 65536):
            continue
    except BlockingIOError:
        return


def ptrace() -> Callable[[int, int, int | None, int | None], int]:
    """ptrace(2), which answers -1 and leaves its reason in `ctypes.get_errno`."""
    call = _libc.ptrace
    call.restype = ctypes.c_long
    call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return call
