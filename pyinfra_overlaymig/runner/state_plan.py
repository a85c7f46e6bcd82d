"""What publishing will do to a state path that exists: decided before the commit, by a pure function over two trees.

A directory that is on both sides and not opaque is gone into, anything else is one entry.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from pyinfra_overlaymig.format.octal import escape_path
from pyinfra_overlaymig.runner import copies, files, immovable, mountinfo, state_far, state_links, trees
from pyinfra_overlaymig.runner.say import Leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY, OPAQUE, WHITEOUT, OTHER = "d", "o", "w", "f"


class Decision(NamedTuple):
    """Relative paths. ``dirs``: on both sides, the top first; ``new``: into a free place; ``had``: for something."""

    dirs: list[str]
    new: list[str]
    had: list[str]


def decide(upper: Mapping[str, str], live: Mapping[str, str]) -> Decision:
    """From the kinds of what is in an upper, and of what the live state has at the same paths."""
    found = Decision([""], [], [])
    entered = {""}
    for path in sorted(upper, key=os.fsencode):
        if path.rpartition("/")[0] not in entered:
            continue
        if upper[path] == DIRECTORY and live.get(path) == DIRECTORY:
            entered.add(path)
            found.dirs.append(path)
        elif path in live:
            found.had.append(path)
        elif upper[path] != WHITEOUT:
            found.new.append(path)
    return found


def write(directory: str, live: str) -> None:
    """Plans one state path: ``directory`` of a journal, which gets the lists that state.py describes."""
    upper = f"{directory}/upper"
    kinds = _upper_kinds(upper)
    if state_links.keep(upper, live, _live_kinds(live, kinds)):
        kinds = _upper_kinds(upper)
    found = decide(kinds, _live_kinds(live, kinds))
    _refuse_other_file_systems(live, found)
    _refuse_mounted(live, found)
    _refuse_immovable(upper, live, found)
    for path in (*found.had, *found.new):
        clean(f"{upper}/{path}")
    if os.lstat(live).st_dev == os.lstat(directory).st_dev:
        files.make_dirs(f"{directory}/old", mode=0o700)
    elif found.had or found.new:
        state_far.bring(directory, live, found.dirs, (*found.had, *found.new))
    upper = os.path.realpath(upper)
    for name, paths in found._asdict().items():
        files.write_lines(f"{directory}/{name}", [_named(path) for path in paths])
    times = [f"{os.lstat(trees.below(upper, path)).st_mtime_ns} {_named(path)}" for path in found.dirs]
    files.write_lines(f"{directory}/times", times)
    files.write_lines(f"{directory}/metadata", [_metadata(live, path) for path in found.dirs])
    files.write_lines(f"{directory}/attributes", [_attributes(live, path) for path in found.dirs])


def _named(path: str) -> str:
    return f"./{escape_path(path)}" if path else "."


def _metadata(live: str, path: str) -> str:
    found = os.lstat(trees.below(live, path))
    return f"{stat.S_IMODE(found.st_mode):o} {found.st_uid}:{found.st_gid} {_named(path)}"


def _attributes(live: str, path: str) -> str:
    place = trees.below(live, path)
    held = copies.attributes_text(copies.attributes(place, overlay=False))
    return f"{os.lstat(place).st_mtime_ns} {held} {_named(path)}"


def _upper_kinds(upper: str) -> dict[str, str]:
    found = {}
    for path, at in trees.walk(upper):
        if stat.S_ISDIR(at.st_mode):
            found[path] = OPAQUE if trees.is_opaque(f"{upper}/{path}") else DIRECTORY
        else:
            found[path] = WHITEOUT if trees.is_whiteout(at) else OTHER
    return found


def _live_kinds(live: str, upper: dict[str, str]) -> dict[str, str]:
    """Of what the upper has, parents first, what the live state has in its directories; links are none."""
    found: dict[str, str] = {}
    for path in upper:
        above = path.rpartition("/")[0]
        if above and found.get(above) != DIRECTORY:
            continue
        at = trees.lstat(f"{live}/{path}")
        if at is not None:
            found[path] = DIRECTORY if stat.S_ISDIR(at.st_mode) else OTHER
    return found


def _refuse_other_file_systems(live: str, found: Decision) -> None:
    """Within a state path, entries are renamed: what cannot be has to be known before the commit."""
    device = os.lstat(live).st_dev
    for path in (*found.new, *found.had):
        place = trees.below(live, path.rpartition("/")[0])
        if os.lstat(place).st_dev != device:
            raise Leave(
                9, f"the install script changed {live}/{path}, which is on another file system than {live}: that cannot"
                " be done in one step",
                "leave what is there to the service, or have each state path on one file system",
            )  # fmt: skip


def _refuse_mounted(live: str, found: Decision) -> None:
    """What something is mounted over cannot be replaced (EBUSY), nor be moved away without taking that with it."""
    if not found.had:
        return
    mounts = mountinfo.read(1)
    device, top = mountinfo.inner(live, mounts)
    taken = [path for on, path in mountinfo.covered(mounts) if on == device]
    for path in found.had:
        place = f"{top}/{path}"
        if any(one == place or one.startswith(f"{place}/") for one in taken):
            raise Leave(
                9, f"the migration would replace or remove {live}/{path}, and something is mounted there",
                "unmount it first (findmnt names it), or leave what is there as it is",
            )  # fmt: skip


def _differs(one: str, other: str) -> bool:
    is_now, was = os.lstat(one), os.lstat(other)
    return (
        (is_now.st_mode, is_now.st_uid, is_now.st_gid, is_now.st_mtime_ns)
        != (was.st_mode, was.st_uid, was.st_gid, was.st_mtime_ns)
    ) or copies.attributes(one, overlay=False) != copies.attributes(other, overlay=False)


def _refuse_immovable(upper: str, live: str, found: Decision) -> None:
    """Of what is there, what would be changed: entries that are replaced, directories that hold others afterwards."""
    changed = {path.rpartition("/")[0] for path in (*found.had, *found.new)}
    changed |= {path for path in found.dirs if _differs(trees.below(upper, path), trees.below(live, path))}
    for path in sorted(changed | set(found.had), key=os.fsencode):
        refuse_immovable(trees.below(live, path))


def refuse_immovable(place: str) -> None:
    """Leaves where ``place`` refuses to be changed: it would do so after the commit as well."""
    if why := immovable.why_at(place):
        raise Leave(
            9, f"the migration would change {place}, which is {why}",
            "lift that first (chattr -i, chattr -a, mount -o remount,rw), if it is to be changed",
        )  # fmt: skip


def clean(place: str) -> None:
    """Takes out what only an overlay's upper has: it would mean something again where this is below another overlay."""
    found = os.lstat(place)
    for name in copies.attributes(place):
        if name.startswith(copies.OVERLAY):
            os.removexattr(place, name, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        for entry in trees.entries(place):
            if not entry.is_file(follow_symlinks=False) and trees.is_whiteout(entry.stat(follow_symlinks=False)):
                os.unlink(entry.path)
            else:
                clean(entry.path)
