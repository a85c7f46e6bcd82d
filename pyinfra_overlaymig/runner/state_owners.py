"""Owners while state is published: the stage has the numbers of the new stack, what is there those of the old one."""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.runner import copies, files, owners, state, trees
from pyinfra_overlaymig.runner.directories import stat_at
from pyinfra_overlaymig.runner.owners_change import ACLS, acl, moved, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_overlaymig.runner.directories import Directories
    from pyinfra_overlaymig.runner.owners_change import Moves
    from pyinfra_overlaymig.runner.state import Part


def follow(part: Part) -> Moves:
    """Before anything of the stage comes, which has the numbers of the new stack, what is there gets them too."""
    if not files.there(part.has("moves")):
        now = owners.coming()
        moves = owners.moves_of(part.path, now)
        if not moves:
            owners.follow(part.path, now)
            return moves
        files.write_file(part.has("owners"), owners.text(now))
        files.write_file(part.has("moves"), owners.moves_text(moves))
    owners.follow(part.path, owners.read(part.has("owners")))
    return owners.read_moves(part.has("moves"))


def own(part: Part, held: Directories, moves: Moves) -> None:
    """What a script left to its owner is that one's by name: what was only copied up has the numbers of before.

    Decided once: of what has moved already, nobody could tell.
    """
    if files.there(part.has("owned")):
        return
    if not files.there(part.has("owning")):
        lines = [*_copied(part, held, moves), *_inherited(part, held, moves)]
        files.write_file(part.has("owning"), "".join(f"{line}\n" for line in lines))
    for line in files.lines(part.has("owning")):
        uid, gid, held_text, name = line.split(" ", 3)
        place = trees.below(part.tree("upper"), octal.unescape_path(name)[2:])
        mode = stat.S_IMODE(os.lstat(place).st_mode)
        copies.set_metadata(place, (int(uid), int(gid)), mode, copies.attributes_of(held_text))
    files.write_file(part.has("owned"), "")


def _copied(part: Part, held: Directories, moves: Moves) -> Iterator[str]:
    """What is on both sides."""
    for path in (*state.names(part.has("dirs")), *state.names(part.has("had"))):
        place = trees.below(part.tree("upper"), path)
        staged = trees.lstat(place)
        directory, name = held.of(path) if path else (held.open(""), ".")
        is_now = stat_at(directory, name)
        if staged is None or trees.is_whiteout(staged) or is_now is None:
            continue
        owner = (staged.st_uid, staged.st_gid)
        if moved(staged, moves) == (is_now.st_uid, is_now.st_gid):
            owner = (is_now.st_uid, is_now.st_gid)
        there = copies.attributes(f"/proc/self/fd/{directory}/{name}", overlay=False)
        yield from _line(place, path, owner, {one: there.get(one, b"") for one in ACLS}, moves)


def _inherited(part: Part, held: Directories, moves: Moves) -> Iterator[str]:
    """What is new has its ACL from the directory that it was made in."""
    for path in state.names(part.has("new")):
        place = f"{part.tree('upper')}/{path}"
        default = copies.attributes(held.of(path)[0]).get("system.posix_acl_default", b"")
        if not default or trees.lstat(place) is None:
            continue
        below = [f"{path}/{one}" for one, _ in trees.walk(place)] if files.plain_dir(place) else []
        for one in (path, *below):
            made = f"{part.tree('upper')}/{one}"
            found = os.lstat(made)
            yield from _line(made, one, (found.st_uid, found.st_gid), dict.fromkeys(ACLS, default), moves)


def _line(place: str, path: str, owner: tuple[int, int], there: dict[str, bytes], moves: Moves) -> Iterator[str]:
    """What becomes of an entry; nothing where nothing does. ``there``: ACLs that have followed already."""
    found = os.lstat(place)
    held = copies.attributes(place)
    wanted = {name: acl(value, moves, named(there[name])) if name in ACLS else value for name, value in held.items()}
    if owner != (found.st_uid, found.st_gid) or wanted != held:
        name = f"./{octal.escape_path(path)}" if path else "."
        yield f"{owner[0]} {owner[1]} {copies.attributes_text(wanted)} {name}"
