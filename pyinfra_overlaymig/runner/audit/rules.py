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
    mask,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

KEY = "migration_tracking"
"""All records of what is watched have it, with the kind after it: `ausearch -k migration_tracking` finds them."""
_NEVER = "overlaymig"
"""Of rules that leave out, whose key is in no record; and of all rules of the runners before."""
UPPERS = f"{_NEVER}-uppers-"
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
_ALL = b"\xff" * 254 + b"\0\0"
"""The bits of all calls, as auditctl has them; the last ones stand for classes of calls."""
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

    def _calls(self, names: Iterable[str]) -> bytes:
        return mask(self.numbers[name] for name in names if name in self.numbers)


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
    return any(rule.key == one or rule.key.startswith(f"{one}-") for one in (KEY, _NEVER))


def begin(audit: Audit, session: int, uppers: int, devices: Sequence[str]) -> bool:
    """Set the rules of a session; whether each kind that all depends on is set, and nothing hides what they name."""
    wanted = of_session(session, uppers, devices)
    # One that a kernel does not know is left out.
    errors = audit.add(*wanted)
    there = {rule.key for rule, error in zip(wanted, errors, strict=True) if error in (0, errno.EEXIST)}
    return narrow(audit) and all(f"{KEY}-{kind}" in there for kind in _KINDS)


def of_those(audit: Audit, over: Callable[[int], bool]) -> list[Rule]:
    """The rules of the sessions that are over, as they are to be deleted.

    Those that leave out come last: what is left of a session's rules says as long as possible which uppers it has.
    """
    found = [rule for rule in audit.rules() if (session := session_of(rule)) is not None and over(session)]
    return sorted(found, key=lambda rule: rule.key.startswith(UPPERS))


def end(audit: Audit, over: Callable[[int], bool]) -> None:
    """Delete the rules of the sessions that are over."""
    audit.delete(*of_those(audit, over))
    # Also where there was none: whoever deleted them may have been killed before this.
    narrow(audit)


def narrow(audit: Audit) -> bool:
    """Leave out, or no more, the PATHs that an overlay gives once more for its upper, a quarter of all records.

    That holds for a whole type of file system and for everybody: so only while all sessions are of overlays, and nobody
    else has rules. False where they are left out and must not be.
    """
    there = 0
    # Looked at again after each change: another's may have come in between.
    for _ in range(4):
        listed = audit.rules()
        wanted, there = _uppers(listed)
        if wanted == there:
            return True
        if there:
            audit.delete(*filter(_leaves_out, listed))
        elif audit.add(_filesystem(wanted)) not in ([0], [errno.EEXIST]):
            # An older kernel: it goes without.
            return True
    return there == 0


def _leaves_out(rule: Rule) -> bool:
    return rule.filter == FILESYSTEM and rule.key.startswith(UPPERS)


def _uppers(listed: Iterable[Rule]) -> tuple[int, int]:
    """The type of file system that may be left out, and the one that is; 0 for none."""
    there, others = 0, False
    uppers: dict[int, int] = {}
    for rule in listed:
        kind = int(rule.key.removeprefix(UPPERS)) if rule.key.startswith(UPPERS) else 0
        if _leaves_out(rule):
            there = kind
        elif not ours(rule):
            others = others or rule.filter != EXCLUDE
        elif (session := session_of(rule)) is not None:
            uppers[session] = uppers.get(session) or kind
    kinds = set(uppers.values())
    return (kinds.pop() if len(kinds) == 1 and not others else 0), there


def _filesystem(kind: int) -> Rule:
    return Rule(FILESYSTEM, NEVER, _ALL, ((FSTYPE, EQUAL, kind),), f"{UPPERS}{kind}")


def terse(audit: Audit) -> None:
    """Leave out the kinds of records, half of all, that tell nothing which others do not."""
    audit.add(*(Rule(EXCLUDE, ALWAYS, _ALL, ((MSGTYPE, EQUAL, kind),)) for kind in _TERSE))


def verbose(audit: Audit) -> None:
    """Undoes `terse`."""
    wanted = [((MSGTYPE, EQUAL, kind),) for kind in _TERSE]
    audit.delete(*(rule for rule in audit.rules() if rule.filter == EXCLUDE and rule.fields in wanted and not rule.key))
