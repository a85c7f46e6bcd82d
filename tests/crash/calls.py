"""A stopped call as a person would write it, `rename(/a.new, /a)`, and whether it would change the machine at all.

Cut points are named by this text, so that they hold whatever program and language makes the call.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from tests.crash.seccomp import IOCTL, OPEN, WRITE, Stopped

# Where a call's arguments name files: p: a path, a: a descriptor of a directory and a path after it, f: a descriptor.
_WHERE = {
    **dict.fromkeys(("open", "creat", "truncate", "mkdir", "rmdir", "unlink", "chmod", "chown", "lchown"), "p0"),
    **dict.fromkeys(("mknod", "utime", "utimes", "setxattr", "lsetxattr", "removexattr", "lremovexattr"), "p0"),
    **dict.fromkeys(("rename", "link", "symlink", "pivot_root"), "p0 p1"),
    **dict.fromkeys(("openat", "openat2", "mkdirat", "mknodat", "unlinkat", "fchownat", "fchmodat"), "a0"),
    **dict.fromkeys(("fchmodat2", "utimensat", "futimesat", "setxattrat", "removexattrat", "mount_setattr"), "a0"),
    **dict.fromkeys(("renameat", "renameat2", "linkat", "move_mount"), "a0 a2"),
    **dict.fromkeys(("ftruncate", "fchmod", "fchown", "fallocate", "fsetxattr", "fremovexattr", "fsync"), "f0"),
    **dict.fromkeys(("fdatasync", "syncfs", "write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile"), "f0"),
    **dict.fromkeys(("copy_file_range", "splice"), "f2"),
    **dict.fromkeys(("ioctl",), "f0"),
    **dict.fromkeys(("umount2", "execve"), "p0"),
    **dict.fromkeys(("symlinkat",), "p0 a1"),
    **dict.fromkeys(("mount",), "p0 p1 p2"),
    **dict.fromkeys(("fsconfig",), "p2"),
    **dict.fromkeys(("execveat",), "a0"),
}
_NOT_KEPT = re.compile(r"(^|/run/system-migrate/base(\.new)?|/root)/(dev|proc|sys)/")
"""What is no file that anybody keeps: /dev/null, /proc/self/loginuid."""
_LOG = re.compile(r"/(log|console|\.incoming\.\d+/log)$")
"""What is said on the way is of no machine's state; that it is lost in a crash is no fault."""
_PATH_MAX = 4096
_AT_FDCWD, _NOREPLACE = -100, 1


def text(stopped: Stopped) -> str:
    """The call, with the paths that it names as they are seen from its process's root."""
    parts = []
    for word in _WHERE.get(stopped.name, "").split():
        value, number = stopped.args[int(word[1])], int(word[1])
        if word[0] == "f":
            parts.append(_descriptor(stopped.pid, value))
        elif word[0] == "p":
            path = string(stopped.pid, value)
            relative = stopped.name not in {"symlink", "symlinkat", "mount", "fsconfig"} or number == 1
            parts.append(_absolute(stopped.pid, None, path) if relative else path)
        else:
            parts.append(_absolute(stopped.pid, value, string(stopped.pid, stopped.args[number + 1])))
    return f"{stopped.name}({', '.join(parts)})"


def changes(stopped: Stopped) -> bool:
    """Whether the call is of those that change something that is kept.

    write(2) and its like are, as far as they go to a file or to a FIFO that has a name (s6 is told by those), but not
    to a log: half a file is a state of its own, half a message is none.
    """
    if stopped.name in OPEN or stopped.name == "creat":
        path = string(stopped.pid, stopped.args[1 if stopped.name == "openat" else 0])
        return not _NOT_KEPT.match(path) and not _LOG.search(path)
    if stopped.name in WRITE or stopped.name in IOCTL:
        number = stopped.args[int(_WHERE[stopped.name][1])]
        path = _descriptor(stopped.pid, number)
        return path.startswith("/") and not _NOT_KEPT.search(path) and not _LOG.search(path) and _kept(stopped, number)
    return not _is_in_vain(stopped)


def reach(stopped: Stopped, argument: int) -> Path:
    """A path among the arguments, as it is reached from here, in the call's own root and mounts."""
    given = string(stopped.pid, stopped.args[argument])
    here = Path(f"/proc/{stopped.pid}")
    if given.startswith("/"):
        return here / "root" / given.lstrip("/")
    directory = _signed(stopped.args[argument - 1]) if stopped.name.endswith(("at", "at2")) else _AT_FDCWD
    return (here / "cwd" if directory == _AT_FDCWD else here / "fd" / str(directory)) / given


def _is_in_vain(stopped: Stopped) -> bool:
    """Whether the kernel will refuse: `mkdir -p` tries each directory above, mv first tries not to replace."""
    match stopped.name:
        case "mkdir" | "mkdirat":
            return _is_there(stopped, 0 if stopped.name == "mkdir" else 1)
        case "unlink" | "unlinkat":
            return not _is_there(stopped, 0 if stopped.name == "unlink" else 1)
        case "renameat2" if stopped.args[4] & _NOREPLACE:
            return _is_there(stopped, 3)
    return False


def _is_there(stopped: Stopped, argument: int) -> bool:
    try:
        reach(stopped, argument).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # it cannot be told
    return True


def _kept(stopped: Stopped, number: int) -> bool:
    try:
        mode = Path(f"/proc/{stopped.pid}/fd/{_signed(number)}").stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def string(pid: int, address: int) -> str:
    """What stands at an address of a process, up to its end."""
    if not address:
        return ""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        return "?"
    try:
        found = b""
        while b"\0" not in found and len(found) < _PATH_MAX:
            # Not past a page's end: the next one may not be there.
            begin = address + len(found)
            found += os.pread(memory, 4096 - begin % 4096, begin) or b"\0"
        return os.fsdecode(found.partition(b"\0")[0])
    except OSError:
        return "?"
    finally:
        os.close(memory)


def _descriptor(pid: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{_signed(number)}")  # noqa: PTH115 - it may name no file
    except OSError:
        return "?"


def _absolute(pid: int, directory: int | None, path: str) -> str:
    if path.startswith("/"):
        return path
    if directory is None or _signed(directory) == _AT_FDCWD:
        try:
            above = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - as above
        except OSError:
            above = "?"
    else:
        above = _descriptor(pid, directory)
    return f"{above.rstrip('/')}/{path}" if path else above


def _signed(number: int) -> int:
    """A descriptor is an int, whatever is in the upper half of its register."""
    return number - (1 << 32) if (number := number & 0xFFFFFFFF) >> 31 else number
