"""Trees for tests: what a tree looks like, random ones, and random things that programs do to them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

NAMES = ["a", "b", "a b", "tab\tline\n", "back\\slash", "\udcff"]
CONTENTS = ["", "x", "y", "hello", 5000]
"""A number is a length: of a long text, Hypothesis would have to print too much."""
_USER = 2
"""Of a named user, the tag in an ACL."""
Picture = dict[str, tuple[Any, ...]]


def picture(top: str | Path, *, times: bool = True, overlay: bool = False) -> Picture:
    """All that can be seen of a tree: of each path its kind, rights, owner, contents, attributes, names, time."""
    top = str(top)
    found: Picture = {".": look(top, times=times, overlay=overlay)}
    first: dict[int, str] = {}
    for directory, directories, files in os.walk(top):
        directories.sort()
        for name in sorted(directories + files):
            path = f"{directory}/{name}"
            relative = os.path.relpath(path, top)
            seen = look(path, times=times, overlay=overlay)
            at = os.lstat(path)
            if at.st_nlink > 1 and not stat.S_ISDIR(at.st_mode):
                seen = (*seen, first.setdefault(at.st_ino, relative))
            found[relative] = seen
    return found


def look(path: str, *, times: bool = True, overlay: bool = False) -> tuple[Any, ...]:
    """One entry."""
    at = os.lstat(path)
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if overlay or not name.startswith("trusted.overlay.")
    }
    what: object = None
    if stat.S_ISREG(at.st_mode):
        what = Path(path).read_bytes()
    elif stat.S_ISLNK(at.st_mode):
        what = os.readlink(path)
    elif stat.S_ISCHR(at.st_mode) or stat.S_ISBLK(at.st_mode):
        what = at.st_rdev
    time = at.st_mtime_ns if times else 0
    return (stat.filemode(at.st_mode), at.st_uid, at.st_gid, what, tuple(attributes.items()), time)


names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
there = st.integers(0, 1000)
"""The N-th of what is there."""
operations = st.one_of(
    st.tuples(st.just("write"), paths, st.sampled_from(CONTENTS)),
    st.tuples(st.just("write"), paths, st.sampled_from(CONTENTS)),
    st.tuples(st.just("mkdir"), paths),
    st.tuples(st.just("symlink"), paths, st.sampled_from(["a", "../b", "/etc/passwd", "a b"])),
    st.tuples(st.sampled_from(["fifo", "socket", "device"]), paths),
    st.tuples(st.just("write"), there, st.sampled_from(CONTENTS)),
    st.tuples(st.sampled_from(["rewrite", "open", "remove", "replace", "acl", "swap"]), there),
    st.tuples(st.sampled_from(["link", "rename"]), there, paths),
    st.tuples(st.just("chmod"), there, st.sampled_from([0o600, 0o755, 0o4755, 0o1777])),
    st.tuples(st.just("chown"), there, st.sampled_from([0, 7, 1000])),
    st.tuples(
        st.just("setxattr"),
        there,
        st.sampled_from(["trusted.x", "user.y", "user.a,b =c"]),
        st.sampled_from([b"1", b"\x00two"]),
    ),
    st.tuples(st.just("touch"), there, st.integers(1, 2_000_000_000)),
)
"""What programs do; one that makes no sense is left out when it is done."""
few = st.lists(operations, min_size=2, max_size=25)
many = st.lists(operations, min_size=15, max_size=40)


def do(top: str | Path, operation: tuple[Any, ...]) -> None:
    """Does one of ``operations`` below ``top``; what cannot be done changes nothing."""
    kind, path, *rest = operation
    if isinstance(path, int):
        held = sorted(os.path.join(at, name) for at, below, files in os.walk(top) for name in below + files)
        if not held:
            return
        place = held[path % len(held)]
    else:
        place = f"{top}/{path}"
        if all(os.path.isdir(above) or not os.path.lexists(above) for above in _above(top, place)):
            os.makedirs(os.path.dirname(place), exist_ok=True)
    try:
        globals()[f"_{kind}"](place, *(f"{top}/{rest[0]}" if kind in ("link", "rename") else one for one in rest))
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        # Directories that are not empty, a directory into itself, user attributes on what has none, names too long.
        if error.errno not in (1, 22, 39, 40, 95):
            raise


def _above(top: str | Path, path: str) -> list[str]:
    parts = os.path.relpath(path, top).split("/")[:-1]
    return [f"{top}/{'/'.join(parts[: end + 1])}" for end in range(len(parts))]


def _write(path: str, text: str | int) -> None:
    if not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode):
        Path(path).write_text("x" * text if isinstance(text, int) else text)


def _rewrite(path: str) -> None:
    """The same contents, as an editor that saves leaves them: a new inode."""
    if stat.S_ISREG(os.lstat(path).st_mode):
        shutil.copy2(path, f"{path}.new")
        os.rename(f"{path}.new", path)


def _open(path: str) -> None:
    if stat.S_ISREG(os.lstat(path).st_mode):
        Path(path).open("ab").close()


def _mkdir(path: str) -> None:
    os.makedirs(path, exist_ok=True)


def _symlink(path: str, target: str) -> None:
    os.symlink(target, path)


def _fifo(path: str) -> None:
    os.mkfifo(path)


def _socket(path: str) -> None:
    os.mknod(path, 0o600 | stat.S_IFSOCK)


def _device(path: str) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def _link(path: str, other: str) -> None:
    os.link(path, other, follow_symlinks=False)


def _rename(path: str, other: str) -> None:
    """Not by rename(2) alone: overlays refuse to rename a directory of a layer."""
    if os.path.isdir(path) and not os.path.islink(path):
        if not os.path.lexists(other):
            subprocess.run(["mv", "-T", path, other], capture_output=True, check=False)
    else:
        os.rename(path, other)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _replace(path: str) -> None:
    """A directory that hides what was there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        os.mkdir(path)


def _swap(path: str) -> None:
    """A directory where a file was, and the other way round."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        Path(path).write_text("was a directory")
    else:
        os.unlink(path)
        os.mkdir(path)
        Path(path, "inner").write_text("was a file")


def _chmod(path: str, mode: int) -> None:
    if not os.path.islink(path):
        os.chmod(path, mode)


def _chown(path: str, owner: int) -> None:
    os.chown(path, owner, owner, follow_symlinks=False)


def _setxattr(path: str, name: str, value: bytes) -> None:
    os.setxattr(path, name, value, follow_symlinks=False)


def _acl(path: str) -> None:
    """u::rwx u:daemon:rwx g::r-x m::rwx o::---"""
    if not os.path.islink(path):
        share(path, 1)


def share(path: str | Path, user: int) -> None:
    """An ACL that names ``user``; of a directory, also for what is made in it."""
    words = [(1, 7, -1), (_USER, 7, user), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (number & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, rights, number in words
    )
    os.setxattr(path, "system.posix_acl_access", value)
    if os.path.isdir(path):
        os.setxattr(path, "system.posix_acl_default", value)


def shared_with(path: str | Path) -> int:
    """The user that an ACL names."""
    value = os.getxattr(path, "system.posix_acl_access")
    return next(
        int.from_bytes(value[at + 4 : at + 8], "little")
        for at in range(4, len(value), 8)
        if int.from_bytes(value[at : at + 2], "little") == _USER
    )


def _touch(path: str, time: int) -> None:
    os.utime(path, (time, time), follow_symlinks=False)


def in_turn(top: str | Path, done: list[tuple[Any, ...]]) -> None:
    """Does them all."""
    for operation in done:
        do(top, operation)


class Killed(BaseException):
    """What a test's process gets instead of a SIGKILL."""


_MUTATING = (
    "rename",
    "link",
    "unlink",
    "rmdir",
    "mkdir",
    "chown",
    "chmod",
    "setxattr",
    "removexattr",
    "utime",
    "symlink",
)


@contextmanager
def killed(after: int) -> Iterator[list[int]]:
    """Cuts off what runs inside once it has changed something ``after`` times, silently; the list says how often."""
    done = [0]

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if done[0] >= after:
                raise Killed
            done[0] += 1
            return call(*args, **kwargs)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in _MUTATING:
            patch.setattr(os, name, counting(getattr(os, name)))
        with suppress(Killed):
            yield done
