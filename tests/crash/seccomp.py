"""A filter around a tree of processes that stops each call that may change something, and asks what is to be done.

Python has no door to seccomp(2), so its numbers and structures for x86_64 are here, and nothing else is. The filter
goes along through exec, fork, unshare and chroot, and what runs under it need not know of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import struct
from typing import NamedTuple


def _numbers(words: str) -> dict[str, int]:
    names = iter(words.split())
    return {name: int(next(names)) for name in names}


EXEC = {"execve": 59, "execveat": 322}
"""They change nothing; who executes what tells whose process it is."""
WRITE = {"write": 1, "pwrite64": 18, "writev": 20, "sendfile": 40, "splice": 275, "pwritev": 296}
WRITE |= {"copy_file_range": 326, "pwritev2": 328}
OPEN = {"open": 2, "openat": 257}
"""Only those that may make or empty a file are stopped."""
IOCTL = {"ioctl": 16}
"""Only those that share the blocks of another file are stopped."""
CHANGE = _numbers(
    """
    truncate 76 ftruncate 77 rename 82 mkdir 83 rmdir 84 creat 85 link 86 unlink 87 symlink 88 mknod 133
    chmod 90 fchmod 91 chown 92 fchown 93 lchown 94 utime 132 utimes 235 futimesat 261 utimensat 280
    openat2 437 mkdirat 258 mknodat 259 fchownat 260 unlinkat 263 renameat 264 linkat 265 symlinkat 266
    fchmodat 268 renameat2 316 fchmodat2 452 fallocate 285
    setxattr 188 lsetxattr 189 fsetxattr 190 removexattr 197 lremovexattr 198 fremovexattr 199
    setxattrat 463 removexattrat 466
    fsync 74 fdatasync 75 sync 162 syncfs 306
    pivot_root 155 mount 165 umount2 166 move_mount 429 fsconfig 431 fsmount 432 mount_setattr 442 sethostname 170
    """
)
NUMBERS = {**EXEC, **WRITE, **OPEN, **IOCTL, **CHANGE}
NAMES = {number: name for name, number in NUMBERS.items()}

_SECCOMP = 317
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
_ARCH_X86_64 = 0xC000003E
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _IS, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCH, _ARGS = 0, 4, 16
_X32 = 0x40000000
_CLONES = (0x40049409, 0x4020940D)
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1

CREATES = os.O_CREAT | os.O_TRUNC
_libc = ctypes.CDLL(None, use_errno=True)


class Stopped(NamedTuple):
    """A call that waits for its answer: of which thread, which call, and its arguments as they are in registers."""

    id: int
    pid: int
    name: str
    args: tuple[int, ...]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse_elsewhere() -> None:
    """Say so where the numbers here are other calls' numbers."""
    if platform.machine() != "x86_64":
        raise SystemExit(f"crash harness: the numbers of system calls are those of x86_64, not of {platform.machine()}")


def install() -> int:
    """Put this process, and all it starts, under the filter; the descriptor at which stopped calls are received."""
    refuse_elsewhere()
    raw = b"".join(_instructions())
    buffer = ctypes.create_string_buffer(raw, len(raw))
    program = _Program(len(raw) // 8, ctypes.addressof(buffer))
    # A call that was received is not begun anew when a signal comes, or it would be counted twice.
    flags = _NEW_LISTENER | _WAIT_KILLABLE_RECV
    # No no_new_privs, as root needs none: setuid programs have to work below.
    listener: int = _libc.syscall(_SECCOMP, _SET_MODE_FILTER, flags, ctypes.byref(program))
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return listener


def receive(listener: int) -> Stopped | None:
    """The next call that waits; None when it was of a process that died meanwhile."""
    request = bytearray(80)
    try:
        fcntl.ioctl(listener, _RECEIVE, request)
    except (FileNotFoundError, InterruptedError):
        return None
    id, pid, _, number, _, _, *args = struct.unpack("=QIIiIQ6Q", request)
    return Stopped(id, pid, NAMES.get(number, str(number)), tuple(args))


def go_on(listener: int, stopped: Stopped) -> None:
    """Let the kernel do what was asked for."""
    _answer(listener, struct.pack("=QqiI", stopped.id, 0, 0, _CONTINUE))


def fail(listener: int, stopped: Stopped, errno: int) -> None:
    """Do nothing, and tell the caller ``errno``."""
    _answer(listener, struct.pack("=QqiI", stopped.id, 0, -errno, 0))


def _answer(listener: int, answer: bytes) -> None:
    # Its process may have been killed while it waited.
    with contextlib.suppress(FileNotFoundError):
        fcntl.ioctl(listener, _SEND, answer)


def _instructions() -> list[bytes]:
    """The filter in the kernel's own small language: BPF over the number and the arguments of a call."""
    allow = _instruction(_RETURN, _ALLOW)
    notify = _instruction(_RETURN, _NOTIFY)
    program = [_instruction(_LOAD, _ARCH), _instruction(_IS, _ARCH_X86_64, 1, 0), allow]
    program += [_instruction(_LOAD, _NUMBER), _instruction(_AT_LEAST, _X32, 0, 1), allow]
    for number in (*EXEC.values(), *WRITE.values(), *CHANGE.values()):
        program += [_instruction(_IS, number, 0, 1), notify]
    for name, number in OPEN.items():
        flags = _instruction(_LOAD, _ARGS + 8 * (1 if name == "open" else 2))
        check = _instruction(_ANY_BIT, CREATES, 0, 1)
        program += [_instruction(_IS, number, 0, 4), flags, check, notify, allow]
    request = _instruction(_LOAD, _ARGS + 8)
    clones = [part for code in _CLONES for part in (_instruction(_IS, code, 0, 1), notify)]
    program += [_instruction(_IS, IOCTL["ioctl"], 0, 2 + len(clones)), request, *clones, allow]
    return [*program, allow]


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
