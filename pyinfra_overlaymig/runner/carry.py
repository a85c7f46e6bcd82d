"""Which mounts of the running root go with it to the next one, and how they get there."""

from __future__ import annotations

import os
from contextlib import suppress

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import LIVE, OLD, RUN, STATE
from pyinfra_overlaymig.runner import copies, files, linux, mountinfo, store
from pyinfra_overlaymig.runner.linux import MS_BIND, MS_MOVE, MS_REC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.mountinfo import Mount

_KERNELS = ("/dev", "/proc", "/sys")
"""Nobody stands in them with what would be missed: their copies serve."""
OWN = ("/tmp", "/var/tmp")  # noqa: S108 - nothing is made there: they are mounted
"""Mounts of the runner's that are everybody's: temporary.py makes them at boot."""
_STATE, _CARRIED = f"{RUN}/state", f"{RUN}/carried"


def to_carry(mounts: list[Mount], state: set[str]) -> list[Mount]:
    """Those that are bound at the same place in a new root, each with the tree below it; in order of their places.

    State paths are not: they follow the generation. Nor is what is the runner's own, nor what lies under another mount
    at the same place.
    """
    by_id = {one.id: one for one in mounts}
    covered = {one.parent for one in mounts if one.parent in by_id and by_id[one.parent].place == one.place}
    top = {
        one.place: one
        for one in mounts
        if one.place not in ("/", RUN)
        and not one.place.startswith(f"{RUN}/")
        and one.place not in state
        and one.id not in covered
    }
    return [top[place] for place in sorted(top) if not any(above in top for above in _above(place))]


def _above(place: str) -> list[str]:
    parts = place.split("/")
    return ["/".join(parts[:depth]) for depth in range(2, len(parts))]


def carry(new: str) -> None:
    """Binds what is to go with it, and the state of the current generation, below ``new``."""
    state = store.state_paths()
    files.write_lines(f"{_STATE}.new", [octal.escape_text(path) for path in state])
    mounts = to_carry(mountinfo.read(1), {*state, *_paths(_STATE)})
    files.write_lines(_CARRIED, [f"{one.id} {octal.escape_text(one.place)}" for one in mounts])
    for one in mounts:
        _make_place(LIVE + one.place, new + one.place)
        linux.mount(LIVE + one.place, new + one.place, flags=MS_BIND | MS_REC)
    for path in state:
        _bind_state(path, new + path)


def _paths(file: str) -> list[str]:
    return [octal.unescape_text(line.split("\t")[-1]) for line in files.lines(file)]


def _bind_state(path: str, place: str) -> None:
    # Where the layers have a link into state there is nothing to mount.
    if os.path.islink(place) and os.readlink(place) == STATE + path:
        return
    # A rollback that restored state took it away with the layer that brings it: it begins anew, owned as its place is.
    if not files.plain_dir(STATE + path):
        files.make_dirs(STATE + path)
        if os.path.isdir(place):
            copies.take_metadata(place, STATE + path)
    _make_place(STATE + path, place)
    linux.mount(STATE + path, place, flags=MS_BIND)


def _make_place(source: str, place: str) -> None:
    """Makes ``place``, a directory or a file as ``source`` is, where it is missing: in the new root's upper."""
    if os.path.isdir(source):
        if not os.path.isdir(place):
            files.make_dirs(place)
    elif not os.path.exists(place):
        files.make_dirs(os.path.dirname(place))
        files.mark(place)


def complete() -> None:
    """After the pivot, also after a kill: the new root has copies of the old one's mounts; now the mounts themselves
    are laid over them, because processes stand in them: s6-svscan in /run/service would have no working directory
    otherwise.

    Each is moved once, told by its id: at its place in the old root there may be a copy from the switch before, which
    would cover it.
    """
    if not os.path.isdir(LIVE + OLD):
        return
    at = {one.id: one.place for one in mountinfo.read(1)}
    for line in files.lines(_CARRIED):
        id, _, field = line.replace("\t", " ").partition(" ")
        place = octal.unescape_text(field)
        if place not in _KERNELS and at.get(int(id)) == OLD + place:
            _replace(f"{OLD}{place}", place) if place in OWN else _move(f"{OLD}{place}", place)
    # Where /run is no mount of its own, the view still hangs in the old root.
    if any(place == OLD + RUN for place in at.values()):
        _move(OLD + RUN, RUN)


def settle_state() -> None:
    """From here on the state paths of the generation that runs are what must not be carried over."""
    if files.there(f"{_STATE}.new"):
        os.rename(f"{_STATE}.new", _STATE)


def detach() -> None:
    """Lets the old root go: it stays as long as somebody has a file of it open."""
    if os.path.isdir(LIVE + OLD):
        if any(one.place == OLD for one in mountinfo.read(1)):
            linux.umount(LIVE + OLD, linux.MNT_DETACH)
        os.rmdir(LIVE + OLD)


def _replace(source: str, place: str) -> None:
    """As `_move`, with no copy left below it: what it is a copy of lies on /data, and could not be removed there."""
    with suppress(OSError):
        linux.umount(LIVE + place, linux.MNT_DETACH)
    if not _move(source, place):
        linux.mount(LIVE + source, LIVE + place, flags=MS_BIND | MS_REC)


def _move(source: str, place: str) -> bool:
    """Tried twice. Where it cannot be moved its copy serves as well: that is no error."""
    for _ in range(2):
        try:
            linux.mount(LIVE + source, LIVE + place, flags=MS_MOVE)
        except OSError:
            continue
        return True
    return False


def processes_on(root: int) -> list[int]:
    """Those whose root is the mount ``root`` still: what was being forked when the root was pivoted."""
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    return [int(pid) for pid in pids if (mount := _root_of(pid)) and mount.id == root]


def _root_of(pid: str) -> Mount | None:
    try:
        return mountinfo.at("/", pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError, OSError):
        return None
