"""init: lays out /data/system and installs this runner there, in place of any other version."""

from __future__ import annotations

import os
import re
import sys

from pyinfra_overlaymig.format.paths import BASE, DATA, SYSTEM
from pyinfra_overlaymig.runner import base, copies, files, linux, lock, metadata, mountinfo, store
from pyinfra_overlaymig.runner.say import attempt, invalid, say, unable, usage
from pyinfra_overlaymig.runner.version import VERSION

HOME = f"{SYSTEM}/runner"
_PROGRAM = "pyinfra_overlaymig/runner/system-migrate"
_LINK = "/usr/local/sbin/system-migrate"
_LENGTH = 12


def main(arguments: list[str]) -> int:
    if arguments:
        raise usage("init takes no arguments", "system-migrate init")
    base.need_root()
    if not os.path.isdir(DATA):
        raise unable(f"there is no {DATA}", f"mount the machine's persistent volume at {DATA}")
    source = sys.path[0]
    digest = files.first_line(f"{source}/digest")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise invalid("this runner has no digest", "install it with machine_prepared")
    store.layout()
    lock.take("init")
    name = digest[:_LENGTH]
    if not os.path.isdir(f"{HOME}/{name}/pyinfra_overlaymig"):
        _install(source, f"{HOME}/{name}")
    previous = _previous()
    # By this link every part of the program is found: it changes at once, or not at all.
    files.replace_link(name, f"{HOME}/current")
    files.replace_link(f"current/{_PROGRAM}", f"{HOME}/system-migrate")
    files.sync_dir(HOME)
    # A verb that runs at this moment may still read from the version before: the ones before that go.
    old = [one for one in files.names(HOME) if one not in (name, previous) and files.plain_dir(f"{HOME}/{one}")]
    files.drop(*(f"{HOME}/{one}" for one in old))
    _link()
    # What an older runner rendered says less: status would read all records until the next change.
    attempt(metadata.write)
    say(f"runner {VERSION} ({name}) is installed in {HOME}")
    return 0


def _previous() -> str:
    """The version that is current; of one from before there was that link, what the program's own link begins with."""
    for link in (f"{HOME}/current", f"{HOME}/system-migrate"):
        if os.path.islink(link):
            return os.readlink(link).partition("/")[0]
    return ""


def _install(source: str, target: str) -> None:
    """Its byte code is there from the first verb on: a verb's start-up is what it imports."""
    new = f"{target}.new"
    files.drop(new, target)
    files.make_dirs(os.path.dirname(target))
    copies.copy_tree(source, new)
    os.chmod(f"{new}/{_PROGRAM}", 0o755)
    if not _compiled(new):
        _compile(new)
    linux.syncfs(os.path.dirname(target))
    os.rename(new, target)


def _compiled(place: str) -> bool:
    """Whether byte code for this Python came with it."""
    from importlib.util import MAGIC_NUMBER, cache_from_source

    return all(
        _begins(cache_from_source(f"{directory}/{name}"), MAGIC_NUMBER)
        for directory, _, found in os.walk(place)
        for name in found
        if name.endswith(".py")
    )


def _begins(path: str, magic: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except FileNotFoundError:
        return False


def _compile(place: str) -> None:
    import compileall
    from py_compile import PycInvalidationMode

    mode = PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(place, quiet=1, invalidation_mode=mode, stripdir=place):
        raise invalid("this runner does not fit the base's python3", "rebuild the image with Python 3.10 or newer")


def _link() -> None:
    """In a root that is an overlay of ours this would be drift: there the image has to have the link."""
    if not mountinfo.is_mount(BASE) and not base.inside() and not files.there(_LINK):
        files.make_dirs(os.path.dirname(_LINK))
        os.symlink(f"{HOME}/system-migrate", _LINK)
