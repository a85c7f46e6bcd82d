"""What a machine looks like, seen from the host: equal pictures mean equal machines; and what a crash may not leave."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.crash.processes import descendants

Picture = frozenset[str]

_hashes: dict[tuple[int, ...], str] = {}
"""Contents by inode and times: a file's change time changes with its contents, and most files are the base's."""


def counted(lines: Iterable[str]) -> Iterator[str]:
    """Each of ``lines`` once, with its number."""
    return (f"{line} x{count}" for line, count in Counter(lines).items())


def tree(
    root: Path, name: str, leave_out: frozenset[str] = frozenset(), over: list[Path] | None = None
) -> Iterator[str]:
    """A line for each entry below ``root``, on its file system: type, mode, owner, size, content, attributes, links.

    The contents of ``leave_out`` are not looked at. Times are left out: two right runs differ in them. Given the
    directories that an overlay lays ``over`` its base, what none of them has is the base's and not looked into.
    """
    device = root.lstat().st_dev
    links: dict[tuple[int, int], list[str]] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        yield _line(root, folder, (root / folder).lstat(), name, leave_out)
        for entry in os.scandir(root / folder):
            path, found = f"{folder}{entry.name}", entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                yield _line(root, path, found, name, leave_out)
                if found.st_nlink > 1:
                    links.setdefault((found.st_dev, found.st_ino), []).append(path)
            elif found.st_dev == device and (over is None or any((layer / path).exists() for layer in over)):
                folders.append(f"{path}/")
            else:
                yield _line(root, path, found, name, leave_out)
    # Not their number: drift has names in the uppers before, which nobody sees.
    yield from (f"{name} links {sorted(paths)!r}" for paths in links.values() if len(paths) > 1)


def _line(root: Path, path: str, found: os.stat_result, name: str, leave_out: frozenset[str]) -> str:
    file = root / path
    attributes = [
        (one, os.getxattr(file, one, follow_symlinks=False).hex())
        for one in sorted(os.listxattr(file, follow_symlinks=False))
        if not one.startswith("trusted.overlay.")
    ]
    content = ""
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(file)  # noqa: PTH115 - a path of a machine, to be compared as it is
    elif stat.S_ISREG(found.st_mode) and path not in leave_out:
        content = f"{found.st_size} {_hash(file, found)}"
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        content = f"{found.st_rdev:x}"
    return f"{name} /{path!r} {found.st_mode:o} {found.st_uid}:{found.st_gid} {content!r} {attributes}"


def _hash(file: Path, found: os.stat_result) -> str:
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key not in _hashes:
        _hashes[key] = hashlib.sha256(file.read_bytes()).hexdigest()
    return _hashes[key]


def mounts(pid: int, directory: Path) -> Iterator[str]:
    """A line for each mount of a machine: place, type, and what of it is mounted."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        words = line.split(" ")
        kind = words[words.index("-") + 1]
        # On its file system, which may begin anywhere in the host's tree.
        source = re.sub(rf"^.*/{directory.parent.name}/{directory.name}(?=/|$)", "", words[3])
        yield f"mount {words[4]} {kind} {source}"


def processes(pid: int) -> list[tuple[int, str]]:
    """The processes below ``pid``, whatever namespace they are in: pid and command line."""
    found = []
    for one in descendants(pid):
        try:
            words = Path(f"/proc/{one}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # One without has ended, and waits to be asked for.
        if words != [b""]:
            found.append((one, " ".join(os.fsdecode(word) for word in words)))
    return found


def leftovers(data: Path, pid: int) -> list[str]:
    """What a recovered machine has that it should not: a held lock, work directories, half-written files, mounts."""
    system = data / "system"
    found = [str(path) for path in (system / "staging").iterdir() if not (path / "failed").is_file()]
    for folder in (system, *(path for path in system.iterdir() if path.is_dir())):
        found += [str(path) for path in folder.iterdir() if ".new" in path.name]
    found += [str(path) for path in (system / "migrations").glob("*/*.new")]
    found += [
        str(path) for path in (system / "migrations").glob("*/") if path.is_dir() and not (path / "applied").exists()
    ]
    layers, records = (
        {path.name for path in (system / name).iterdir() if path.is_dir()} for name in ("layers", "migrations")
    )
    found += [f"layer without a record, or the other way round: {name}" for name in layers ^ records]
    found += [
        f"generation {path.name} lacks a layer, or has one that is not its own: {word}"
        for path in (system / "generations").iterdir()
        if path.name.isdigit()
        for word in _unlike(system, path)
    ]
    live = int((system / "upper/live").readlink().name)
    found += [
        str(path) for path in (system / "upper").glob("[0-9]*") if int(path.name) not in range(live - 2, live + 1)
    ]
    found += [
        f"/proc/{pid}/root{path}"
        for path in ("/dev/.system-migrate.old", "/run/system-migrate/pivot")
        if Path(f"/proc/{pid}/root{path}").exists()
    ]
    return found + lock(data)


def _unlike(system: Path, generation: Path) -> Iterator[str]:
    """Of a generation that can be gone back to, the layers that are over another stack, or another edition's."""
    stack = [line.removeprefix("layer ") for line in generation.read_text().splitlines() if line.startswith("layer ")]
    # One that was taken back is recorded, and lacks its layer.
    if not all((system / "layers" / id).is_dir() for id in stack):
        return
    above: list[str] = []
    for id in stack:
        record = dict(
            line.partition(" ")[::2] for line in (system / "migrations" / id / "record").read_text().splitlines()
        )
        if record["below"] != hashlib.sha256("".join(f"{one}\n" for one in above).encode()).hexdigest():
            yield f"{id} is over another stack"
        edited = b"echo edited >/etc/two" in (system / "migrations" / id / "install_script.sh").read_bytes()
        two = system / "layers" / id / "etc/two"
        if two.exists() and (two.read_text() == "edited\n") is not edited:
            yield f"{id} has the layer of another edition"
        above.append(id)


def lock(data: Path) -> list[str]:
    """Says so when somebody holds the lock."""
    with (data / "system/lock/flock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ["the lock is held"]
    return []
