"""Owners in state: files belong to names, disks keep numbers. Where a name has another number now, its files follow.

A name that is gone may come back; where its number is another one's meanwhile, its files wait at a number of nobody's.
Pre-start scripts of services have records of their own (FORMAT.md, accounts/), which are kept right. `moving` is theirs
too: numbers may have been swapped, so all files move to free numbers first.
"""

from __future__ import annotations

import os

from pyinfra_overlaymig.format.paths import ACCOUNTS, LAYERS, LIVE, STAGING, STATE, UPPER
from pyinfra_overlaymig.runner import catch_up, files, rooted, state_places, store, trees
from pyinfra_overlaymig.runner.owners_change import Moves, change
from pyinfra_overlaymig.runner.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

APART = 1_000_000_000
"""What is added to a number while its files are on their way."""
WAITING = 2_000_000_000
"""From here on are the numbers of files that wait."""

Accounts = dict[tuple[str, str], int]
"""By `u` or `g` and name, a number."""

_FILES = (("u", "/etc/passwd"), ("g", "/etc/group"))


def of(root: str) -> Accounts:
    """The accounts that a root knows."""
    found: Accounts = {}
    for kind, file in _FILES:
        found.update(_accounts(kind, rooted.resolve(root, file)))
    return found


def _accounts(kind: str, file: str) -> Accounts:
    found: Accounts = {}
    for line in files.lines(file):
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal():  # noqa: PLR2004 - NAME:PASSWORD:NUMBER
            found.setdefault((kind, fields[0]), int(fields[2]))
    return found


def plan(was: Mapping[tuple[str, str], int], now: Mapping[tuple[str, str], int]) -> tuple[Moves, Accounts]:
    """What has to move, and the accounts to remember: those of now, and those that are gone with what is theirs."""
    taken = {(kind, number) for (kind, _), number in now.items()}
    moves: Moves = {}
    keep = dict(now)
    for (kind, name), number in was.items():
        here = now.get((kind, name))
        if here is None:
            here = _free(kind, was, keep) if (kind, number) in taken else number
            keep[kind, name] = here
        if here != number:
            moves[kind, number] = here
    return moves, keep


def _free(kind: str, *all_known: Mapping[tuple[str, str], int]) -> int:
    used = {number for known in all_known for (of_kind, _), number in known.items() if of_kind == kind}
    return next(number for number in range(WAITING, WAITING + len(used) + 1) if number not in used)


def record(path: str) -> str:
    """What a pre-start script remembers of a state path: who owned something at the last start."""
    return f"{ACCOUNTS}/{path.replace('%', '%25').replace('/', '%2f')}"


def read(file: str) -> Accounts:
    """The accounts that a file remembers."""
    found: Accounts = {}
    for line in files.lines(file):
        kind, name, number = line.split(" ")
        found[kind, name] = int(number)
    return found


def text(accounts: Mapping[tuple[str, str], int]) -> str:
    return "".join(f"{kind} {name} {number}\n" for (kind, name), number in sorted(accounts.items()))


def remembered(path: str) -> Accounts:
    """Whose the numbers in a state path are, as far as that is known."""
    return {**of(LIVE), **_known(path)}


def _known(path: str) -> Accounts:
    """What lies in another state path has gone with that one, until it had a record of its own."""
    for one in (path, *(f"/{above}" for above in trees.parents(path[1:]))):
        if found := read(f"{record(one)}.all") or read(record(one)):
            return found
    return {}


def within(path: str) -> list[str]:
    """The state paths in ``path`` that have records of their own: their numbers are none of its."""
    names = {name.split(".all")[0].split(".moving")[0] for name in files.names(ACCOUNTS)}
    paths = (name.replace("%2f", "/").replace("%25", "%") for name in names)
    return sorted(one for one in paths if one.startswith(f"{path}/") and files.plain_dir(STATE + one))


def remember(path: str, accounts: Mapping[tuple[str, str], int]) -> None:
    """From now on the numbers in a state path are these accounts'."""
    theirs = {key: accounts.get(key, number) for key, number in read(record(path)).items()}
    for file, known in ((f"{record(path)}.all", accounts), (record(path), theirs)):
        # A full disk is in nobody's way where nothing has changed.
        if files.read(file) != text(known):
            files.make_dirs(ACCOUNTS, mode=0o700)
            # Not synced by itself: all of it is, before anybody is told that it is done.
            files.write_plain(f"{file}.new", text(known))
            os.rename(f"{file}.new", file)


def coming() -> Accounts:
    """The accounts that the current generation has, also before it runs: what is changed by hand goes with it."""
    tops = [f"{UPPER}/{catch_up.live()}/upper", *(f"{LAYERS}/{layer}" for layer in reversed(store.stack())), ""]
    found: Accounts = {}
    for kind, file in _FILES:
        top = next((one for one in tops if os.path.isfile(one + file)), None)
        found.update(_accounts(kind, "" if top is None else top + file))
    return found


def follow_all(root: str = LIVE) -> None:
    """In each state path of the current generation, files follow the names that ``root`` has for their owners.

    Not while a stage's state is published, which has followed already: what it would bring back has those numbers too.
    """
    if any(files.there(f"{STAGING}/{id}/publishing") for id in files.names(STAGING)):
        return
    now = of(root)
    for path in state_places.outermost(store.state_paths()):
        if files.plain_dir(STATE + path):
            follow(path, now)


def moves_of(path: str, now: Mapping[tuple[str, str], int]) -> Moves:
    """What `follow` would move."""
    found: Moves = {}
    for one in (*within(path), path):
        found.update(plan(_known(one), now)[0])
    return found


def follow(path: str, now: Mapping[tuple[str, str], int]) -> None:
    """In one state path, and those in it. Can be done again after any interruption."""
    inner = within(path)
    # First of all, as one without numbers of its own has those of what it lies in.
    for one in inner:
        _follow(one, now, [other for other in inner if other.startswith(f"{one}/")])
    _follow(path, now, inner)


def _follow(path: str, now: Mapping[tuple[str, str], int], apart: Iterable[str]) -> None:
    file = record(path)
    others = {STATE + one for one in apart}
    moving = f"{file}.moving"
    # A record that is new has nobody's files to move.
    moves, keep = plan(_known(path), now)
    if not files.there(moving) and moves:
        for (kind, old), new in sorted(moves.items()):
            say(f"{path}: what was {kind} {old} becomes {new}")
        change(STATE + path, {(kind, old): old + APART for kind, old in moves}, others)
        files.write_file(moving, moves_text(moves))
    if files.there(moving):
        there = read_moves(moving)
        change(STATE + path, {(kind, old + APART): new for (kind, old), new in there.items()}, others)
    remember(path, keep)
    files.drop(moving, f"{file}.moves")


def moves_text(moves: Moves) -> str:
    return "".join(f"{kind} {old} {new}\n" for (kind, old), new in sorted(moves.items()))


def read_moves(file: str) -> Moves:
    """What `moves_text` wrote."""
    return {(kind, int(old)): int(new) for kind, old, new in (line.split(" ") for line in files.lines(file))}
