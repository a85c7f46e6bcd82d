"""The rules of a session, and what all sessions share; as auditctl lists them, FORMAT.md ("Audit") describes them."""

from __future__ import annotations

import errno

from pyinfra_overlaymig.runner.audit import calls
from pyinfra_overlaymig.runner.audit.netlink import (
    ALL_BITS,
    ALWAYS,
    ARCH,
    ARGUMENTS,
    BITS,
    DEVMAJOR,
    DEVMINOR,
    EQUAL,
    EXCLUDE,
    FILESYSTEM,
    FSTYPE,
    MSGTYPE,
    NEVER,
    ON_EXIT,
    PERM,
    SESSIONID,
    SUCCESS,
    Audit,
    Rule,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

KEY = "overlaymig"
UPPERS = f"{KEY}-uppers-"
_KINDS = ("content", "metadata", "process")
_WRITE, _O_CREAT, _NEW = 2, 0x40, 0xC0

_OPENED = ("openat", "openat2")
_CHANGED = ("truncate", "mkdirat", "renameat", "renameat2", "linkat", "unlinkat", "symlinkat", "mknodat")
# Not fchmod and fchown: whoever has a file open to write to it is known by that, and package managers call them for
# each file.
_DESCRIBED = (
    "fchmodat", "fchmodat2", "fchownat", "utimensat", "utimensat_time64", "setxattr", "lsetxattr", "fsetxattr",
    "removexattr", "lremovexattr", "fremovexattr", "chown32", "lchown32",
)  # fmt: skip
_STARTED = ("execve", "execveat", "clone", "clone3")
# Calls of older ABIs; on some machines only 32-bit programs have them.
_OPENED_OLD = ("open",)
_CHANGED_OLD = ("creat", "mkdir", "rmdir", "rename", "link", "unlink", "symlink", "mknod", "truncate64")
_DESCRIBED_OLD = ("chmod", "chown", "lchown", "utime", "utimes", "futimesat")
_STARTED_OLD = ("fork", "vfork")
# A command line once more, the capabilities of a program that has some, the directory that a path is relative to, whose
# inode is in the PATHs, and that an event is complete, which the number of its PATHs tells.
_TERSE = (1327, 1321, 1307, 1320)


def of_session(session: int, uppers: int, devices: Iterable[str]) -> list[Rule]:
    """Calls that change files and succeed, and those that make processes, which tell who is whose child.

    Nothing on ``devices`` (`major` or `major:minor`). ``uppers``: where all that is watched are overlays, and their
    uppers tell the outcome, the type of the uppers' file system; or 0.
    """
    devices = list(devices)
    found: list[Rule] = []
    for number, (abi, numbers) in enumerate(calls.abis()):
        found += _of_abi(_Scope(abi, numbers, session, uppers), devices, dpkg=number == 0 and uppers != 0)
    return found


class _Scope:
    """What all rules of one session and ABI have in common."""

    def __init__(self, abi: int, numbers: dict[str, int], session: int, uppers: int) -> None:
        # The session is the first of what is compared: for all other processes of the machine the rest costs nothing.
        self.fields = ((ARCH, EQUAL, abi), (SESSIONID, EQUAL, session))
        self.numbers = numbers
        self.uppers = f"{UPPERS}{uppers}"

    def never(self, names: Iterable[str], *fields: tuple[int, int, int]) -> Rule:
        return Rule(ON_EXIT, NEVER, self._calls(names), self.fields + fields, self.uppers)

    def always(self, kind: str, names: Iterable[str], *fields: tuple[int, int, int]) -> Rule:
        return Rule(ON_EXIT, ALWAYS, self._calls(names), (*self.fields, (SUCCESS, EQUAL, 1), *fields), f"{KEY}-{kind}")

    def _calls(self, names: Iterable[str]) -> frozenset[int]:
        return frozenset(self.numbers[name] for name in names if name in self.numbers)


def _of_abi(scope: _Scope, devices: Iterable[str], *, dpkg: bool) -> Iterator[Rule]:
    opened = _OPENED_OLD + _OPENED
    changed = _CHANGED_OLD + _CHANGED
    described = _DESCRIBED_OLD + _DESCRIBED
    for device in devices:
        major, _, minor = device.partition(":")
        place = [(DEVMAJOR, EQUAL, int(major))] + ([(DEVMINOR, EQUAL, int(minor))] if minor else [])
        # A device node that is made or described has the number of its device as well: only those that are opened are
        # memory's.
        yield scope.never(opened if device == "1" else opened + changed + described, *place)
    if dpkg:
        # Two calls in three of dpkg's: it makes each file under another name, without any rights, and sets its times;
        # the renaming tells who. Where nothing but a file's times changed, the upper tells it.
        yield scope.never(["openat"], (ARGUMENTS + 2, ALL_BITS, _NEW), (ARGUMENTS + 3, EQUAL, 0))
        yield scope.never(["utimensat"], (ARGUMENTS + 3, EQUAL, 0))
    yield scope.always("content", opened, (PERM, EQUAL, _WRITE))
    # O_CREAT makes a file that may then only be read.
    yield scope.always("content", ["openat"], (ARGUMENTS + 2, BITS, _O_CREAT))
    if "open" in scope.numbers:
        yield scope.always("content", ["open"], (ARGUMENTS + 1, BITS, _O_CREAT))
    yield scope.always("content", changed)
    yield scope.always("metadata", described)
    yield scope.always("process", _STARTED_OLD + _STARTED)


def session_of(rule: Rule) -> int | None:
    """The session that one of our rules names; None for rules of others, and those of all sessions."""
    if not ours(rule):
        return None
    return next((value for field, how, value in rule.fields if (field, how) == (SESSIONID, EQUAL)), None)


def ours(rule: Rule) -> bool:
    """Whether it is one of overlaymig's, of whatever machine."""
    return rule.key == KEY or rule.key.startswith(f"{KEY}-")


def begin(audit: Audit, session: int, uppers: int, devices: Sequence[str]) -> bool:
    """Set the rules of a session; whether each kind that all depends on is set, and nothing hides what they name."""
    # One that a kernel does not know is left out.
    audit.add(*of_session(session, uppers, devices))
    if not narrow(audit):
        return False
    there = {rule.key for rule in audit.rules() if session_of(rule) == session}
    return all(f"{KEY}-{kind}" in there for kind in _KINDS)


def end(audit: Audit, over: Callable[[int], bool]) -> None:
    """Delete the rules of the sessions that are over; each as it is listed."""
    found = [rule for rule in audit.rules() if (session := session_of(rule)) is not None and over(session)]
    if found:
        audit.delete(*found)
    # Also where there was none: whoever deleted them may have been killed before this.
    narrow(audit)


def narrow(audit: Audit) -> bool:
    """Leave out, or no more, the PATHs that an overlay gives once more for its upper, a quarter of all records.

    That holds for a whole type of file system and for everybody: so only while all sessions are of overlays, and nobody
    else has rules. False where they are left out and must not be.
    """
    there = wanted = 0
    # Looked at again after each change: another's may have come in between.
    for _ in range(4):
        wanted, there = _uppers(audit.rules())
        if wanted == there:
            return True
        if there:
            audit.delete(_filesystem(there))
        elif audit.add(_filesystem(wanted)) not in ([0], [errno.EEXIST]):
            # An older kernel: it goes without.
            return True
    return there == 0


def _uppers(listed: Iterable[Rule]) -> tuple[int, int]:
    """The type of file system that may be left out, and the one that is; 0 for none."""
    there = 0
    uppers: dict[int, int] = {}
    for rule in listed:
        if rule.filter == EXCLUDE:
            continue
        if not ours(rule):
            return 0, _left_out(listed)
        kind = int(rule.key.removeprefix(UPPERS)) if rule.key.startswith(UPPERS) else 0
        if rule.filter == FILESYSTEM:
            there = kind
        elif (session := session_of(rule)) is not None:
            uppers[session] = uppers.get(session) or kind
    kinds = set(uppers.values())
    return (kinds.pop() if len(kinds) == 1 else 0), there


def _left_out(listed: Iterable[Rule]) -> int:
    found = [rule.key for rule in listed if rule.filter == FILESYSTEM and rule.key.startswith(UPPERS)]
    return int(found[-1].removeprefix(UPPERS)) if found else 0


def _filesystem(kind: int) -> Rule:
    return Rule(FILESYSTEM, NEVER, frozenset(), ((FSTYPE, EQUAL, kind),), f"{UPPERS}{kind}")


def terse(audit: Audit) -> None:
    """Leave out the kinds of records, half of all, that tell nothing which others do not."""
    audit.add(*_excluded())


def verbose(audit: Audit) -> None:
    """Undoes `terse`."""
    audit.delete(*_excluded())


def _excluded() -> list[Rule]:
    return [Rule(EXCLUDE, ALWAYS, frozenset(), ((MSGTYPE, EQUAL, kind),)) for kind in _TERSE]
