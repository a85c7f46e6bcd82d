"""Owners in state: files belong to names, disks keep numbers. Where a name has another number now, its files follow.

A name that is gone may come back; where its number is another one's meanwhile, its files wait at a number of nobody's.
Pre-start scripts of services have records of their own (FORMAT.md, accounts/), which are kept right. `moving` is theirs
too: numbers may have been swapped, so all files move to free numbers first.
"""

from __future__ import annotations

import errno
import os
import stat

from pyinfra_overlaymig.format.paths import ACCOUNTS, LAYERS, LIVE, STAGING, STATE, UPPER
from pyinfra_overlaymig.runner import catch_up, copies, files, rooted, store
from pyinfra_overlaymig.runner.say import say, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

APART = 1_000_000_000
"""What is added to a number while its files are on their way."""
WAITING = 2_000_000_000
"""From here on are the numbers of files that wait."""
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_USER, _GROUP = 2, 8
"""Tags of entries in an ACL that have a number."""

Accounts = dict[tuple[str, str], int]
"""By `u` or `g` and name, a number."""
Moves = dict[tuple[str, int], int]
"""By `u` or `g` and number, another number."""


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
    return read(f"{record(path)}.all") or read(record(path))


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
    for path in store.state_paths():
        if files.plain_dir(STATE + path):
            follow(path, now)


def moves_of(path: str, now: Mapping[tuple[str, str], int]) -> Moves:
    """What `follow` would move."""
    return plan(_known(path), now)[0]


def follow(path: str, now: Mapping[tuple[str, str], int]) -> None:
    """In one state path. Can be done again after any interruption."""
    file = record(path)
    moving = f"{file}.moving"
    # A record that is new has nobody's files to move.
    moves, keep = plan(_known(path), now)
    if not files.there(moving) and moves:
        for (kind, old), new in sorted(moves.items()):
            say(f"{path}: what was {kind} {old} becomes {new}")
        _change(STATE + path, {(kind, old): old + APART for kind, old in moves})
        files.write_file(moving, moves_text(moves))
    if files.there(moving):
        there = read_moves(moving)
        _change(STATE + path, {(kind, old + APART): new for (kind, old), new in there.items()})
    remember(path, keep)
    files.drop(moving, f"{file}.moves")


def moves_text(moves: Moves) -> str:
    return "".join(f"{kind} {old} {new}\n" for (kind, old), new in sorted(moves.items()))


def read_moves(file: str) -> Moves:
    """What `moves_text` wrote."""
    return {(kind, int(old)): int(new) for kind, old, new in (line.split(" ") for line in files.lines(file))}


def moved(found: os.stat_result, moves: Moves) -> tuple[int, int]:
    """The owner of an entry after its numbers have moved."""
    return moves.get(("u", found.st_uid), found.st_uid), moves.get(("g", found.st_gid), found.st_gid)


def _change(top: str, moves: Moves) -> None:
    """Gives all that belongs to one number to another; of ``top`` and what it holds on its file system.

    What refuses it (immutable, read-only) is named, and in nobody's way.
    """
    device = os.lstat(top).st_dev
    refused: list[OSError] = []
    parent = os.open(os.path.dirname(top), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _change_entry(os.path.basename(top), parent, moves, refused)
    finally:
        os.close(parent)
    for _, directories, names, here in os.fwalk(top, follow_symlinks=False):
        for name in (*directories, *names):
            found = _change_entry(name, here, moves, refused)
            if name in directories and (found is None or found.st_dev != device):
                directories.remove(name)
    if refused:
        warn(f"{len(refused)} entries of {top} keep their owner: {refused[0].filename}: {refused[0].strerror}")


def _change_entry(name: str, here: int, moves: Moves, refused: list[OSError]) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        _change_owner(name, here, found, moves)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EROFS, errno.EACCES):
            raise
        refused.append(type(error)(error.errno, error.strerror, name))
    return found


def _change_owner(name: str, here: int, found: os.stat_result, moves: Moves) -> None:
    """Mode, capabilities and ACLs stay: a change of owner takes set-user-id bits and capabilities away."""
    owner = moved(found, moves)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        if owner != (found.st_uid, found.st_gid):
            os.chown(name, *owner, dir_fd=here, follow_symlinks=False)
        return
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    try:
        _change_file(file, found, owner, moves)
    finally:
        os.close(file)


def _change_file(file: int, found: os.stat_result, owner: tuple[int, int], moves: Moves) -> None:
    held = copies.attributes(file)
    wanted = {name: acl(value, moves) if name in _ACLS else value for name, value in held.items()}
    if owner != (found.st_uid, found.st_gid) or wanted != held:
        copies.set_metadata(file, owner, stat.S_IMODE(found.st_mode), wanted)


def acl(value: bytes, moves: Moves) -> bytes:
    """An ACL, as the kernel has it, whose named users and groups have followed."""
    made = bytearray(value)
    for at in range(4, len(value) - 7, 8):
        tag = int.from_bytes(value[at : at + 2], "little")
        if tag in (_USER, _GROUP):
            number = int.from_bytes(value[at + 4 : at + 8], "little")
            new = moves.get(("u" if tag == _USER else "g", number), number)
            made[at + 4 : at + 8] = new.to_bytes(4, "little")
    return bytes(made)
