"""Explains a stage from what its session left there: the records, what inodes are called, what changed.

It is read after the commit, which needs none of it, by a process of its own.
"""

from __future__ import annotations

import fcntl
import os
import zlib

from pyinfra_overlaymig.format import who
from pyinfra_overlaymig.format.paths import LAYERS
from pyinfra_overlaymig.runner import files, store
from pyinfra_overlaymig.runner.audit import fields, packages, places, records
from pyinfra_overlaymig.runner.audit.explain import Account, Change, Explanation, Left, parse, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyinfra_overlaymig.format import changes as format_changes

_LATER = 5
"""The niceness of what explains: services start meanwhile."""
_GZIP = 31


def from_lists(stage: str) -> None:
    """`explain`, behind all else, from the lists that the comparison has left in the stage."""
    os.nice(_LATER)
    lock = os.open(f"{stage}/audit/lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # One of a runner that was killed may not have noticed.
    fcntl.flock(lock, fcntl.LOCK_EX)
    changes = parse(places.read(f"{stage}/changes.list"))
    unchanged = _paths(f"{stage}/lists/unchanged") | _paths(f"{stage}/lists/unchanged.dirs")
    _join(stage, changes, _paths(f"{stage}/lists/times"), unchanged)


def _paths(path: str) -> set[str]:
    return {line.partition("\t")[0] for line in places.read(path)}


def explain(stage: str, changes: Iterable[format_changes.Change], times: set[str], unchanged: set[str]) -> None:
    """Writes audit/who, as FORMAT.md describes who.list, and audit/unexplained, from what the stage's session recorded.

    All paths are as in changes.list. ``times``: where only times changed; ``unchanged``: what an upper has for nothing.
    """
    found = [Change(one.op, _latin(one.path), one.note.startswith("== ")) for one in changes]
    _join(stage, found, set(map(_latin, times)), set(map(_latin, unchanged)))


def _latin(path: str) -> str:
    return os.fsencode(path).decode("latin-1")


_SCRIPT = "/run/migration/install.sh"


def keep_trace(stage: str) -> str:
    """Only audit.gz: every record of the session, as audit wrote it; the last command that the script started."""
    last = read(stage, []).processes.last(_SCRIPT)
    return last.encode("latin-1").decode("utf-8", "surrogateescape")


def read(stage: str, of: Iterable[tuple[str, str]]) -> records.Reader:
    """Reads the records of the session in ``stage`` or a capture's directory, and keeps them as audit.gz."""
    here = f"{stage}/audit"
    # Of a capture, which has no uppers, the first process is the command.
    runner = f"system-migrate apply {os.path.basename(stage)}" if os.path.exists(f"{here}/uppers") else ""
    reader = records.Reader(files.first_line(f"{here}/session"), {device for device, _ in of}, runner)
    packed = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    with open(f"{stage}/audit.gz", "wb") as file:
        for lines in fields.blocks(f"{here}/records"):
            text = "".join(f"{line}\n" for line in reader.take(lines))
            file.write(packed.compress(text.encode("latin-1")))
        file.write(packed.flush())
    return reader


def watched(here: str) -> list[tuple[str, str]]:
    """The places that are watched: device and path. A device may be at several."""
    found = (line.partition(" ") for line in places.read(f"{here}/places"))
    return [(device, path) for device, _, path in found]


def beside(of: Iterable[tuple[str, str]]) -> set[str]:
    """The devices of what is no part of the root."""
    return {device for device, path in of if path != "/"}


def named(here: str) -> tuple[dict[str, str], dict[str, str]]:
    """What inodes are called: path by key, and key by path."""
    names: dict[str, str] = {}
    inodes: dict[str, str] = {}
    for line in places.read(f"{here}/inodes"):
        device, inode, name = line.split("\t")
        key = f"{device} {inode}"
        names[key] = name
        inodes[name] = key
    return names, inodes


def _join(stage: str, changes: list[Change], times: set[str], unchanged: set[str]) -> None:
    here = f"{stage}/audit"
    of = watched(here)
    reader = read(stage, of)
    merged = packages.merged_usr()
    names, inodes = named(here)
    known = Explanation(resolve(reader.events, names, f"{stage}/root/", merged=merged), inodes)
    changed = {change.path for change in changes}
    parts = [name for name in files.names(f"{stage}/state") if name.isdecimal()]
    lists = [f"{stage}/state/paths", *(f"{stage}/state/{name}/made" for name in parts)]
    kept = [path[1:] for one in lists for path in places.read(one)]
    account = Account(reader.processes.all, _packages(stage, changed, merged=merged))
    account.changed(changes, known, times)
    account.also(known, changed, Left(unchanged, beside(of), kept))
    write(here, account, reader.seen)


def write(here: str, account: Account, seen: int) -> None:
    """What is known then, in the session's directory; that all is explained comes last."""
    with open(f"{here}/who", "w", encoding="latin-1", newline="") as file:
        file.write(who.text(account.who()))
    files.write_plain(f"{here}/seen", f"{seen}\n")
    files.write_plain(f"{here}/unexplained", f"{account.unexplained}\n")


def _packages(stage: str, wanted: set[str], *, merged: bool) -> Mapping[str, str]:
    """The packages of what changed, as the stack below the migration and its own layer know them."""
    id = os.path.basename(stage)
    stack = store.stack()
    below = stack[: stack.index(id)] if id in stack else stack
    top = f"{LAYERS}/{id}" if os.path.isdir(f"{LAYERS}/{id}") else f"{stage}/upper"
    levels = [*(f"{LAYERS}/{layer}" for layer in reversed(below)), ""]
    return packages.in_stack(levels, top, wanted, merged=merged)
