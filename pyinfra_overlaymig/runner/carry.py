"""Which mounts of the running root go with it to the next one, and how they get there."""

from __future__ import annotations

import os
from contextlib import suppress

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import DATA, LIVE, OLD, RUN, STAGING, STATE, is_below
from pyinfra_overlaymig.runner import copies, data_mounts, directories, files, linux, mountinfo, state_places, store
from pyinfra_overlaymig.runner.linux import MS_BIND, MS_MOVE, MS_REC
from pyinfra_overlaymig.runner.say import warn
from pyinfra_overlaymig.runner.state import into_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.mountinfo import Mount

_KERNELS = ("/dev", "/proc", "/sys")
"""Nobody stands in them with what would be missed: their copies serve."""
_BELOW = (RUN.rpartition("/")[0], DATA)
"""The runner works in them: they are never gone, and keep a copy below."""
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
    """Binds what is to go with it, and the state of the current generation, below ``new``: what holds others first."""
    kept = _places(new)
    # Those in others as well: a service's own script may have bound one.
    places = {*kept, *(state_places.shown(new, path) for path in store.state_paths())}
    files.write_lines(f"{_STATE}.new", sorted(map(octal.escape_text, places)))
    data_mounts.tell_missing(kept.values())
    there = mountinfo.read(1)
    state = {*places, *_paths(_STATE)}
    mounts = [one for one in to_carry(there, state) if not _came_with_state(one, state, there)]
    files.write_lines(_CARRIED, [f"{one.id} {octal.escape_text(one.place)}" for one in mounts])
    for place in sorted({*kept, *(one.place for one in mounts)}, key=os.fsencode):
        if place in kept:
            _bind_state(kept[place], new + place)
        else:
            _make_place(LIVE + place, new + place)
            linux.mount(LIVE + place, new + place, flags=MS_BIND | MS_REC)


def _places(new: str) -> dict[str, str]:
    """The state paths of the current generation, by their places in ``new``.

    Where the layers have a link into state there is nothing to mount. What cannot be bound must not keep a machine
    from booting, nor from going back: a service that needs it stays down.
    """
    found: dict[str, str] = {}
    for path in state_places.outermost(store.state_paths()):
        if why := state_places.trouble(new, path):
            warn(f"{why[0]}: it is not bound")
        elif (place := state_places.place(new, path)) != STATE + path:
            found.setdefault(place, path)
    return found


def _came_with_state(one: Mount, state: set[str], there: list[Mount]) -> bool:
    """Whether it is what is mounted below /data/state, which was bound with the state path that it lies in."""
    if not any(is_below(one.place, place) for place in state):
        return False
    return any(is_below(other.place, STATE) and (other.device, other.root) == (one.device, one.root) for other in there)


def _paths(file: str) -> list[str]:
    return [octal.unescape_text(line.split("\t")[-1]) for line in files.lines(file)]


def _bind_state(path: str, place: str) -> None:
    """By a directory that is held open: no link that is put into its way leads out of /data/state."""
    # A rollback that restored state took it away with the layer that brings it: it begins anew, as its place is.
    if not files.plain_dir(STATE + path):
        _begin(path, place)
    _make_place(STATE + path, place)
    with directories.below(STATE) as held:
        linux.mount(f"/proc/self/fd/{held.open(path[1:])}", place, flags=MS_BIND | MS_REC)


def _begin(path: str, place: str) -> None:
    new = f"{STAGING}/begin.new"
    files.drop(new)
    if os.path.isdir(place):
        copies.copy_tree(place, new)
    else:
        os.mkdir(new, 0o755)
    into_place(new, path)


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
            _move(f"{OLD}{place}", place) if place in _BELOW else _replace(f"{OLD}{place}", place)
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
    """As `_move`, with no copy left below it: whoever unmounts it would find that, and keep in use what it is of."""
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
