"""Reads from a finished stage what its script changed, and takes out of its upper what is no change and belongs to no
layer.
"""

from __future__ import annotations

import os
import re

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import NOWHERE, RUN, STATE
from pyinfra_overlaymig.runner import compare, copies, files, immovable, linux, mounts, spawn, state_merge, store, trees
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.entries import FIXED
from pyinfra_overlaymig.runner.say import Leave, say, warn, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.stage import Stage

_SPARSE = "files of many gigabytes take their time, holes too: make them when a service starts, or set a larger timeout"
_SILENCE = 5.0
"""Seconds."""
_SHOWN = 8
_NAME = re.compile(r"[a-z][A-Za-z0-9._-]*")


def capture(stage: Stage, seconds: float) -> None:
    """Writes changes.list, and in lists/ what only looked like a change; in a mount namespace that ends with it."""
    code = spawn.finish(spawn.fork(lambda: _capture(stage)), Deadline(seconds))
    if code == spawn.LATE:
        raise Leave(1, f"what the script changed could not be read within its limit of {seconds:g} s", _SPARSE)
    if code:
        raise Leave(1, "what the script changed cannot be read", "the reason is above")
    if fixed := [*_fixed_in_layer(stage), *_fixed_in_state(stage)]:
        raise Leave(
            1,
            f"the script made what nobody may change (chattr +i or +a), and a layer cannot keep that: {_some(fixed)}",
            "end the script with chattr -i -a on it, and protect it by its mode, owner or place",
        )


def _fixed_in_layer(stage: Stage) -> list[str]:
    """The escaped paths of what `chattr` has made immutable, or append-only."""
    changes = (line.split(" ", 9) for line in files.lines(f"{stage.directory}/changes.list") if f"{FIXED}=" in line)
    return [f"/{fields[8]}" for fields in changes if f"{FIXED}=" in fields[7]]


def _fixed_in_state(stage: Stage) -> list[str]:
    found = []
    for number, name in enumerate(files.lines(f"{stage.directory}/state/paths"), start=1):
        for part in ("upper", "tree"):
            top = f"{stage.directory}/state/{number}/{part}"
            if files.plain_dir(top):
                places = ["", *(f"/{path}" for path, _ in trees.walk(top))]
                fixed = [path for path in places if FIXED in copies.attributes(top + path)]
                found += [name + (octal.escape_text(path) if path else "") for path in fixed]
    return list(dict.fromkeys(found))


def _some(paths: list[str]) -> str:
    return " ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")


def _capture(stage: Stage) -> None:
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    lower, lists = f"{stage.directory}/lower", f"{stage.directory}/lists"
    files.make_dirs(lower, lists)
    mounts.mount_lower(f"{RUN}/stack", lower, store.stack(), linux.MS_NOSUID | linux.MS_NODEV)
    files.drop(*(f"{stage.upper}/{path}" for path in NOWHERE))
    if stage.plan.state_auto:
        _find_state(stage, lower)
    found = compare.compare(stage.upper, lower, check=_Progress().tell)
    _tell_flags(stage.upper, lower, [*found.unchanged, *found.carriers])
    compare.prune(stage.upper, found)
    for name, paths in (("times", found.times), ("unchanged", found.unchanged), ("unchanged.dirs", found.carriers)):
        files.write_lines(f"{lists}/{name}", paths)
    files.write_lines(f"{stage.directory}/changes.list.new", [change.line() for change in found.changes])
    os.rename(f"{stage.directory}/changes.list.new", f"{stage.directory}/changes.list")


def _tell_flags(upper: str, lower: str, unchanged: list[str]) -> None:
    """Names files and directories that are as they were but for what chattr sets: changes.list has no such change."""
    lost = [name for name in unchanged if _has_more_flags(octal.unescape_path(name), upper, lower)]
    if lost:
        warn(f"chattr alone is no change that a layer keeps: {_some([f'/{name}' for name in lost])}")
        write(2, "  hint: have the service that needs it do so in its `prepare`\n")


def _has_more_flags(path: str, upper: str, lower: str) -> bool:
    made = f"{upper}/{path}"
    if not (files.plain_dir(made) or (os.path.isfile(made) and not os.path.islink(made))):
        return False
    flags = immovable.set_by_hand(made)
    return bool(flags and flags & ~immovable.set_by_hand(f"{lower}/{path}"))


class _Progress:
    """Says now and then how much of the large files is read."""

    def __init__(self) -> None:
        self.deadline = Deadline(_SILENCE)

    def tell(self, done: int, total: int) -> None:
        if total and self.deadline.over():
            self.deadline = Deadline(_SILENCE)
            say(f"reading what it changed: {done / 1e9:.1f} of {total / 1e9:.1f} GB")


def _find_state(stage: Stage, lower: str) -> None:
    """Directories that the script made in /var/lib and gave to an account of their own are state, for a migration that
    nobody wrote a manifest for.
    """
    top = "var/lib"
    for name in files.names(f"{stage.upper}/{top}"):
        made = f"{stage.upper}/{top}/{name}"
        if not files.plain_dir(made) or not _NAME.fullmatch(name) or files.there(f"{lower}/{top}/{name}"):
            continue
        if os.lstat(made).st_uid == 0:
            continue
        number = len(files.lines(f"{stage.directory}/state/paths")) + 1
        os.mkdir(f"{stage.directory}/state/{number}")
        _split(made, f"/{top}/{name}", f"{stage.directory}/state/{number}")
        os.mkdir(made)
        files.append_line(f"{stage.directory}/state/paths", octal.escape_text(f"/{top}/{name}"))


def _split(made: str, path: str, directory: str) -> None:
    """What was made at ``path`` is state: where there is some already, as after a rollback, that goes on."""
    if not files.plain_dir(STATE + path):
        os.rename(made, f"{directory}/tree")
        return
    os.symlink(STATE + path, f"{directory}/lower")
    os.mkdir(f"{directory}/upper")
    state_merge.fill(made, path, f"{directory}/upper", state_merge.declared())
    files.drop(made)
