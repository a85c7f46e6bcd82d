"""What audit's devices and inode numbers are called, noted as long as the mounts that have them are there."""

from __future__ import annotations

import errno
import os
import stat

from pyinfra_overlaymig.runner import files, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ESCAPES = {9: "\\011", 10: "\\012", 32: "\\040", 92: "\\134"}
_QUIET = ("/dev", "/proc", "/run")
_NO_FILES = (*_QUIET, "/sys")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def escape(path: str) -> str:
    """A path as lists have it, in Latin-1: blanks, tabs, newlines and backslashes as three octal digits."""
    if path.isascii() and path.isprintable() and " " not in path and "\\" not in path:
        return path
    return os.fsencode(path).decode("latin-1").translate(_ESCAPES)


def unescape(path: str) -> str:
    """The reverse of `escape`."""
    first, *rest = path.split("\\")
    text = first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
    return os.fsdecode(text.encode("latin-1"))


def write(path: str, lines: Iterable[str], *, more: bool = False) -> None:
    """Whole lines to a file of lists."""
    with open(path, "a" if more else "w", encoding="latin-1", newline="") as file:
        file.writelines(f"{line}\n" for line in lines)


def read(path: str) -> list[str]:
    """The lines of a file of lists, none where there is no such file."""
    try:
        with open(path, encoding="latin-1", newline="") as file:
            return file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []


def device(path: str) -> str:
    """Its device as audit writes it."""
    return _device(os.stat(path).st_dev)


def _device(number: int) -> str:
    return f"{os.major(number):02x}:{os.minor(number):02x}"


def quiet(root: str) -> list[str]:
    """The devices whose files are nobody's system: of memory, as /dev/null, and of /dev, /proc and /run in ``root``.

    ``root``: a path, empty for the machine's own.
    """
    wanted = [root + place for place in _QUIET]
    found = {mount.device: None for mount in mountinfo.read() if mount.place in wanted}
    return ["1", *found]


def of_stage(root: str, state: Mapping[str, str]) -> list[str]:
    """Device and path of ``root`` and of the state paths below it, which lie at these places."""
    return [f"{device(root)} /", *(f"{device(root + place)} {escape(path)}" for path, place in state.items())]


def of_machine() -> list[str]:
    """Device and path of each mount of the running root that can hold files of the system."""
    found = []
    for mount in mountinfo.read(1):
        if not any(mount.place == top or mount.place.startswith(f"{top}/") for top in _NO_FILES):
            major, minor = mount.device.split(":")
            found.append(f"{int(major):02x}:{int(minor):02x} {escape(mount.place)}")
    return found


def inodes(upper: str, root: str, prefix: str) -> Iterator[str]:
    """Device, inode and path of what ``upper`` holds, as ``root`` shows it, below ``prefix``.

    An overlay may tell stat(2) another device for its files; audit knows but one.
    """
    top = escape(prefix.strip("/"))
    number = device(root)
    yield f"{number}\t{os.stat(root).st_ino} d\t{top}"
    start, base = (os.open(path, _DIRECTORY) for path in (upper, root))
    waiting = [(".", f"{top}/" if top else "")]
    try:
        while waiting:
            here, shown = waiting.pop()
            for name, key in _held(here, start, base):
                path = f"{shown}{escape(name)}"
                yield f"{number}\t{key}\t{path}"
                if key.endswith("d"):
                    waiting.append((f"{here}/{name}", f"{path}/"))
    finally:
        os.close(start)
        os.close(base)


def _held(path: str, upper: int, root: int) -> list[tuple[str, str]]:
    """What the directory ``path`` of an upper holds: names, and the numbers that they have in the root."""
    found = []
    try:
        here, there = os.open(path, _DIRECTORY, dir_fd=upper), os.open(path, _DIRECTORY, dir_fd=root)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        # What lies so deep is told of by the names that processes gave it.
        return []
    try:
        for name in os.listdir(here):
            try:
                entry = os.stat(name, dir_fd=there, follow_symlinks=False)
            except FileNotFoundError:
                # A whiteout.
                continue
            found.append((name, f"{entry.st_ino} {'d' if stat.S_ISDIR(entry.st_mode) else 'f'}"))
    finally:
        os.close(here)
        os.close(there)
    return found


def by_number(
    wanted: Mapping[str, set[str]], places: Iterable[tuple[str, str]], root: str, *, but: str
) -> Iterator[str]:
    """As `inodes`, for those of the ``wanted`` (`INODE d` or `INODE f`, by device) that are on one of ``places``.

    What was reached through an open directory is known by its number alone. ``but``: a place that is noted already.
    """
    for number, place in places:
        top = root + unescape(place)
        # One file can be a mount, too.
        if place == but or number not in wanted or not os.path.isdir(top):
            continue
        for found, path in _walk(top):
            key = f"{found.st_ino} {'d' if stat.S_ISDIR(found.st_mode) else 'f'}"
            if key in wanted[number]:
                yield f"{number}\t{key}\t{escape((place.strip('/') + path).strip('/'))}"


def _walk(top: str) -> Iterator[tuple[os.stat_result, str]]:
    """All on the file system of ``top`` below it; what comes and goes meanwhile is not looked for."""
    first = os.lstat(f"{top}/.")
    yield first, ""
    left = [""]
    while left:
        directory = left.pop()
        try:
            names = files.names(top + directory)
        except (NotADirectoryError, PermissionError):
            continue
        for name in names:
            try:
                found = os.lstat(f"{top}{directory}/{name}")
            except OSError:
                continue
            if found.st_dev != first.st_dev and stat.S_ISDIR(found.st_mode):
                continue
            yield found, f"{directory}/{name}"
            if stat.S_ISDIR(found.st_mode):
                left.append(f"{directory}/{name}")
