"""Owners while state is published: the stage has the numbers of the new stack, what is there those of the old one."""

from __future__ import annotations

import os
import stat

from pyinfra_overlaymig.runner import copies, files, owners, state, trees
from pyinfra_overlaymig.runner.directories import stat_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.runner.directories import Directories
    from pyinfra_overlaymig.runner.state import Part


def follow(part: Part) -> owners.Moves:
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


def own(part: Part, held: Directories, moves: owners.Moves) -> None:
    """What a script left to its owner is that one's by name: what was only copied up has the numbers of before."""
    if files.there(part.has("owned")):
        return
    for path in (*state.names(part.has("dirs")), *state.names(part.has("had"))):
        place = trees.below(part.has("upper"), path)
        staged = trees.lstat(place)
        if staged is None or trees.is_whiteout(staged):
            continue
        is_now = os.fstat(held.open("")) if not path else stat_at(*held.of(path))
        if is_now is not None and owners.moved(staged, moves) == (is_now.st_uid, is_now.st_gid):
            copies.set_metadata(
                place, (is_now.st_uid, is_now.st_gid), stat.S_IMODE(staged.st_mode), copies.attributes(place)
            )
    files.write_file(part.has("owned"), "")
