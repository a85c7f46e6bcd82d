"""State in a stage: every state path is an overlay of its own over what /data/state holds now. A script sees state, may
change it, and none of it is real until the commit.

A path that is new begins as the stack has it. Where the directory that holds it is not there yet, the script makes
both, maybe by links: its contents are taken from the stage afterwards.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import DATA, STATE
from pyinfra_overlaymig.runner import (
    copies,
    data_mounts,
    files,
    linux,
    mounts,
    rooted,
    state_merge,
    state_places,
    state_plan,
    store,
    topmost,
    trees,
)
from pyinfra_overlaymig.runner.linux import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT
from pyinfra_overlaymig.runner.say import Leave, refused, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from pyinfra_overlaymig.runner.audit.session import Session
    from pyinfra_overlaymig.runner.stage import Stage

_READ_ONLY_SAID = os.strerror(errno.EROFS)
_READ_ONLY = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC


class Mounted(NamedTuple):
    """The overlay of a state path: its place in the stage, and its device, which no other mount has."""

    place: str
    device: int


def mount(stage: Stage, kept: list[str]) -> dict[str, Mounted]:
    """Mounts them, but for those that the script is to make. Leaves with 3 where one of them can be nowhere."""
    if why := state_places.troubles(stage.root, kept, stage.plan.state):
        raise refused(*why)
    mounted: dict[str, Mounted] = {}
    now = store.state_paths()
    for number, path in enumerate(kept, start=1):
        directory = f"{stage.directory}/state/{number}"
        place = state_places.place(stage.root, path)
        files.make_dirs(directory)
        if _is_the_scripts(stage, path, place):
            continue
        _refuse_other_file_system(directory, path)
        if path in stage.plan.state and place not in (path, STATE + path):
            say(f"state path {octal.escape_text(path)} is {octal.escape_text(place)}, where links lead")
        _mount(directory, path, stage.root + place, now)
        mounted[path] = Mounted(place, os.stat(stage.root + place).st_dev)
    for path in set(stage.plan.state).difference(kept):
        place = stage.root + state_places.place(stage.root, path)
        if files.plain_dir(os.path.dirname(place)):
            files.make_dirs(place)
    linux.mount(None, f"{stage.root}/data", flags=_READ_ONLY)
    return mounted


def _is_the_scripts(stage: Stage, path: str, place: str) -> bool:
    """Whether it lies in a directory that is not there."""
    return not files.there(STATE + path) and not files.there(os.path.dirname(stage.root + place))


def _refuse_other_file_system(directory: str, path: str) -> None:
    """One that is new is renamed into its place after the commit."""
    if files.there(STATE + path):
        return
    above = next(f"{STATE}/{one}" for one in (*trees.parents(path[1:]), "") if files.there(f"{STATE}/{one}"))
    if os.lstat(above).st_dev != os.lstat(directory).st_dev:
        raise refused(
            f"state path {octal.escape_text(path)} would begin in {octal.escape_text(above)}, which is on another file"
            " system than /data/system",
            f"have {DATA} hold both, or name a state path that does not lie there",
        )


def _mount(directory: str, path: str, contents: str, now: list[str]) -> None:
    shown = files.plain_dir(contents)
    files.make_dirs(f"{directory}/upper", f"{directory}/work", contents)
    if files.plain_dir(STATE + path):
        os.symlink(STATE + path, f"{directory}/lower")
    else:
        copies.copy_tree(contents, f"{directory}/lower")
    merges = shown and os.path.islink(f"{directory}/lower")
    if not (merges and state_merge.begin(contents, path, f"{directory}/upper", now)):
        # Its time as well: where a script leaves it alone, there is nothing to change.
        copies.take_metadata(f"{directory}/lower/.", f"{directory}/upper", times=True)
    mounts.mount_over(directory, contents, "volatile", flags=MS_NODEV)
    # An overlay shows nothing of what is mounted in what it lies over.
    for place in data_mounts.on(STATE + path):
        if place != STATE + path and files.plain_dir(there := contents + place[len(STATE + path) :]):
            linux.mount(place, there, flags=MS_BIND)
            linux.mount(None, there, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV)


def settle(stage: Stage, kept: list[str]) -> None:
    """After the script, which may have made links: each can be somewhere, and is there."""
    if why := state_places.troubles(stage.root, kept, stage.plan.state):
        raise Leave(9, f"after the install script, {why[0]}", why[1])
    for path in (*kept, *stage.plan.state):
        files.make_dirs(stage.root + state_places.place(stage.root, path))


def read(stage: Stage, kept: list[str], mounted: dict[str, Mounted], session: Session) -> None:
    """What only the mounts tell: what audit's inodes are called, and the contents of state that is new."""
    for number, path in enumerate(kept, start=1):
        directory = f"{stage.directory}/state/{number}"
        place = state_places.place(stage.root, path)
        contents = stage.root + place
        if path not in mounted:
            _read_made(directory, stage.root, place, linked=path in stage.plan.state_links)
            continue
        if os.stat(contents).st_dev != mounted[path].device:
            _refuse_hidden(path, place, contents)
            contents = stage.root + mounted[path].place
        session.inodes(f"{directory}/upper", contents, path.lstrip("/"))
        if _is_new(directory):
            if files.names(f"{directory}/lower"):
                copies.copy_tree(contents, f"{directory}/tree")
            else:
                _refuse_link_within(path, contents)


def _read_made(directory: str, root: str, place: str, *, linked: bool) -> None:
    """What a script made itself: moved out of the layer, once nothing is mounted. A copy where the stack has it too, or
    it gives way to a link.
    """
    if linked or topmost.directory(place[1:]):
        copies.copy_tree(root + place, f"{directory}/tree")
    files.write_lines(f"{directory}/made", [octal.escape_text(place)])


def _refuse_hidden(path: str, place: str, contents: str) -> None:
    """The script has led the name elsewhere: state goes there, and hides what lies there."""
    name, there = octal.escape_text(path), octal.escape_text(place)
    if files.names(contents):
        raise Leave(
            9, f"the install script made state path {name} lead to {there}, where there are files already",
            "what it holds stays as it is and would hide them: have the script empty that directory, or link it first",
        )  # fmt: skip
    say(f"state path {name} is {there} from now on, where links lead")


def _refuse_link_within(path: str, contents: str) -> None:
    """`ln -s TARGET PATH`, where PATH is a directory, makes PATH/TARGET: no script wants that."""
    held = files.names(contents)
    if len(held) == 1 and os.path.islink(f"{contents}/{held[0]}"):
        target = os.readlink(f"{contents}/{held[0]}")
        if os.path.basename(target) == held[0]:
            raise Leave(
                9, f"state path {octal.escape_text(path)} is a directory while the install script runs, and a link to"
                f" {octal.escape_text(target)} was made in it",
                "name the directory that it leads to as state path, or have an earlier migration make the link",
            )  # fmt: skip


def _is_new(directory: str) -> bool:
    """Whether a state path is new to this machine: what it starts from is a copy of the stack's."""
    return not os.path.islink(f"{directory}/lower")


def link(stage: Stage, mounted: Collection[str]) -> None:
    """A state path that the manifest wants as a link is one in the layer, and no mount."""
    for path in stage.plan.state_links:
        above, _, name = path.rpartition("/")
        place = f"{rooted.resolve(stage.root, above)}/{name}"
        if os.path.islink(place) and os.readlink(place) == STATE + path:
            continue
        if path in mounted:
            linux.umount(rooted.resolve(stage.root, path))
        files.drop(place)
        os.symlink(STATE + path, place)


def take(stage: Stage, kept: list[str]) -> None:
    """After all mounts are gone: a state path that is new, and started from nothing, is its upper, or what the script
    made in the layer's; no copy is made.
    """
    for number in range(1, len(kept) + 1):
        directory = f"{stage.directory}/state/{number}"
        if made := files.first_line(f"{directory}/made"):
            _take_made(directory, stage.upper + octal.unescape_text(made))
        elif _is_new(directory) and not files.there(f"{directory}/tree"):
            os.rename(f"{directory}/upper", f"{directory}/tree")


def _take_made(directory: str, place: str) -> None:
    if files.there(f"{directory}/tree"):
        files.drop(*(entry.path for entry in trees.entries(place)))
        return
    os.mkdir(f"{directory}/tree", 0o700)
    for entry in trees.entries(place):
        os.rename(entry.path, f"{directory}/tree/{entry.name}")
    copies.take_metadata(place, f"{directory}/tree", times=True)
    state_plan.clean(f"{directory}/tree")


def hint(stage: Stage) -> str:
    """What may have been in a script's way."""
    kept = map(octal.unescape_text, files.lines(f"{stage.directory}/state/paths"))
    for number, path in enumerate(kept, start=1):
        if not files.there(f"{stage.directory}/state/{number}/upper"):
            name, above = octal.escape_text(path), octal.escape_text(os.path.dirname(path))
            return f"state path {name} is the script's to make, as {above} is not there: mkdir -p {name}"
    if _READ_ONLY_SAID in files.read_end(f"{stage.directory}/log", 4096):
        return "/data, /sys and /proc/sys are not to be written: data is a state path, a swap file a service makes"
    return ""
