"""Disks that are full: one that only answers so, which needs no file system of its own, and a small one that is."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
from pathlib import Path

from tests.crash import calls
from tests.crash.modes import Mode
from tests.crash.seccomp import WRITE, Stopped

_BLOCK = 4096
_RESERVE = (1 << 20) + 129 * _BLOCK
"""A megabyte and 128 empty files; of each file, the inode counts as a block."""
_NAMES = {"mkdir": 0, "mkdirat": 1, "mknod": 0, "mknodat": 1, "symlink": 1, "symlinkat": 2, "link": 1, "linkat": 3}
"""Calls that make a name, and which argument is its path."""
_OPENS = {"creat": 0, "open": 0, "openat": 1, "openat2": 1}
_REMOVES = {"unlink": 0, "unlinkat": 1, "rmdir": 0}


class Full:
    """A file system, that of ``data``, which has no room but what is freed from now on.

    What the runner has released of its reserve before is there for it: this disk has been full for long.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._free = 0

    def fills(self) -> None:
        """From now on it is full."""
        left = [path.stat().st_size for path in (self._data / "system/reserve").glob("*")]
        self._free = _RESERVE - sum(left) - len(left) * _BLOCK

    def has_room(self, stopped: Stopped) -> bool:
        """Whether the call may go on; what it takes or frees is counted."""
        need = self._need(stopped)
        if need > max(0, self._free):
            return False
        self._free -= need
        return True

    def _need(self, stopped: Stopped) -> int:
        """Bytes that the call takes, less than 0: that it frees."""
        name = stopped.name
        if name in WRITE or name in {"fallocate", "ioctl"}:
            number = stopped.args[2 if name in {"copy_file_range", "splice"} else 0]
            return _BLOCK if self._is_here(Path(f"/proc/{stopped.pid}/fd/{number & 0xFFFFFFFF}")) else 0
        for table in (_NAMES, _OPENS, _REMOVES):
            if name in table:
                path = calls.reach(stopped, table[name])
                return self._need_of_name(path, table is _REMOVES) if self._is_here(path.parent) else 0
        return 0

    def _need_of_name(self, path: Path, removed: bool) -> int:
        try:
            found = path.lstat()
        except OSError:
            return 0 if removed else _BLOCK
        if not removed or (found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)):
            return 0
        return -max(found.st_blocks * 512, _BLOCK)

    def _is_here(self, path: Path) -> bool:
        try:
            return path.stat().st_dev == self._data.stat().st_dev
        except OSError:
            return False


def fill(data: Path, mode: Mode) -> None:
    """Leave no block, or no inode, free where ``data`` is."""
    ballast = data / "ballast"
    ballast.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        if mode is Mode.INODES:
            for number in itertools.count():
                (ballast / str(number)).touch()
        else:
            with (ballast / "blocks").open("ab", buffering=0) as file:
                for size in (2**20, 2**12):
                    with contextlib.suppress(OSError):
                        while True:
                            os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)


def free(data: Path) -> None:
    """Undo `fill`."""
    shutil.rmtree(data / "ballast", ignore_errors=True)
