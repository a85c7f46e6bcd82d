"""Bundles: received, and refused before anything is touched. Whoever sends one is root, and may be mistaken."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import struct
import tarfile
import zlib
from typing import NamedTuple

from pyinfra_overlaymig.format import FormatError, limits, plan, rules
from pyinfra_overlaymig.format.paths import DATA, LIVE
from pyinfra_overlaymig.runner import files, rooted, trees
from pyinfra_overlaymig.runner.say import Leave, invalid, refused, short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.format.plan import Plan

_ALONE = ("plan", "limits", "install.sh", "verify.sh", "sums")
_NEEDED = ("plan", "limits", "install.sh", "sums")
_TREES = ("files", "services")
_PIECE = 1 << 20
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
_ABOUT = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_READ = ("plan", "limits", "sums")
_LONGEST_ABOUT, _LONGEST_TEXT, _LONGEST_END = 1 << 16, 64 << 20, 4 << 20
"""Bytes: of a header about the next one, of what is read at once, of what follows an archive's end."""
_LEFT, _INODES_LEFT = 64 << 20, 2048
"""What preflight wants to be free afterwards."""
_NO_ARCHIVE = (ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, struct.error)
"""What tarfile says, besides its own errors, of headers that nothing wrote."""
_NO_ROOM = "remove what is not needed, or make the volume larger"


class _Came(NamedTuple):
    """What was unpacked: of files their permission bits and SHA-256, of links their targets."""

    files: dict[str, tuple[int, str]]
    links: dict[str, str]
    directories: set[str]


class Bundle(NamedTuple):
    """An unpacked bundle in ``directory``."""

    directory: str
    plan: Plan
    limits: Limits


def receive(directory: str, source: int = 0) -> Bundle:
    """Unpacks the tar.gz that can be read from ``source`` into ``directory``, and checks that it came whole."""
    files.drop(directory)
    files.make_dirs(directory, mode=0o700)
    came = _Came({}, {}, set())
    try:
        with os.fdopen(source, "rb", closefd=False) as stream, gzip.GzipFile(fileobj=stream) as packed:
            with tarfile.open(fileobj=packed, mode="r|", tarinfo=_Member) as archive:
                for member in archive:
                    _unpack(archive, member, directory, came)
            _read_end(packed)
    except OSError as error:
        raise _unpacking_failed(error) from error
    except (tarfile.TarError, EOFError, zlib.error, *_NO_ARCHIVE) as error:
        raise _no_bundle(error) from error
    for name in _NEEDED:
        if name not in came.files:
            raise invalid(f"the bundle lacks {name}", "pack it with this version of overlaymig")
    return _checked(directory, came)


class _Member(tarfile.TarInfo):
    """A member's header. What describes the next one is read into memory, as much of it as it says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _ABOUT and found.size > _LONGEST_ABOUT):
            raise tarfile.ReadError(f"it has a header of {found.size} bytes")
        return found


def _read_end(packed: gzip.GzipFile) -> None:
    """An archive ends before its packing does, whose checksum is the last that comes."""
    for _ in range(_LONGEST_END // _PIECE):
        if not packed.read(_PIECE):
            return
    raise ValueError("it goes on after its end")


def _unpacking_failed(error: OSError) -> Leave:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_room()
    # gzip's own errors are of this kind, too.
    return _no_bundle(error)


def _no_bundle(error: Exception) -> Leave:
    return invalid(
        f"this is no bundle, or only a part of one: {short(str(error))}", "pack it again, or upload it again"
    )


def _no_room() -> Leave:
    return refused(f"there is no room in {DATA} for the bundle", _NO_ROOM)


def _refuse_what_is_too_large(member: tarfile.TarInfo, directory: str) -> None:
    """A few kilobytes can unpack to a full disk, on which services live too."""
    if member.name in _READ and member.size > _LONGEST_TEXT:
        raise ValueError(f"its {member.name} has {member.size} bytes")
    found = os.statvfs(directory)
    # A file system that counts no inodes (btrfs) says it has none at all.
    need, free = member.size + _LEFT, found.f_bavail * found.f_frsize
    if need > free:
        raise refused(f"the bundle needs {need >> 10} KiB free in {DATA}, which has {free >> 10}", _NO_ROOM)
    if found.f_files > 0 and found.f_ffree < _INODES_LEFT:
        raise _no_room()


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: str, came: _Came) -> None:
    """Writes one member. Refuses what has no business in a bundle, and what would come by way of a link."""
    name = member.name
    parts = name.split("/")
    inside = parts[0] in _TREES or (len(parts) == 1 and name in _ALONE)
    if not inside or not rules.inside(name) or (len(parts) > 1 and os.path.dirname(name) not in came.directories):
        raise ValueError(f"it holds {name!r}, which is no part of one")
    if name in came.files or name in came.links or name in came.directories:
        raise ValueError(f"it holds {name!r} twice")
    _refuse_what_is_too_large(member, directory)
    target = f"{directory}/{name}"
    if member.isdir():
        os.mkdir(target, 0o755)
        came.directories.add(name)
    elif member.issym() and parts[0] == "files" and len(parts) > 1:
        os.symlink(member.linkname, target)
        came.links[name] = member.linkname
    elif member.type in _PLAIN and not member.issparse() and not (parts[0] in _TREES and len(parts) == 1):
        came.files[name] = (member.mode, _write(archive, member, target))
    else:
        raise ValueError(f"it holds {name!r}, which is neither a file, a directory nor a link")


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> str:
    digest = hashlib.sha256()
    source = archive.extractfile(member)
    # Nothing is replaced, what came twice least of all.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        while source and (piece := source.read(_PIECE)):
            digest.update(piece)
            file.write(piece)
        os.fchmod(descriptor, member.mode & 0o777)
    return digest.hexdigest()


def _checked(directory: str, came: _Came) -> Bundle:
    text = {name: files.read(f"{directory}/{name}") for name in ("plan", "limits", "sums")}
    if _sums(text["sums"]) != {name: digest for name, (_, digest) in came.files.items() if name != "sums"}:
        raise invalid("the bundle is damaged: its checksums do not match", "upload it again")
    try:
        wanted = plan.parse(text["plan"])
        how = limits.parse(text["limits"])
        if strange := {*how.ready, *how.restarts} - {*wanted.services}:
            raise FormatError(f"the limits have {min(strange)!r}, which is no service of the plan")
    except FormatError as error:
        raise invalid(
            f"the bundle is not right: {short(str(error))}", "run machine_prepared, which brings a matching runner"
        ) from error
    if not _is_planned(wanted, came):
        raise invalid("the bundle is damaged: its files are not those of its plan", "pack it again, or upload it again")
    return Bundle(directory, wanted, how)


def _sums(text: str) -> dict[str, str]:
    """Of `sha256sum`'s lines the digests by name; a line that begins with a backslash has an escaped name."""
    found = {}
    for line in text.removesuffix("\n").split("\n"):
        marked = line.startswith("\\")
        digest, _, name = line.removeprefix("\\").partition("  ")
        found[_unescaped(name) if marked else name] = digest
    return found


def _unescaped(name: str) -> str:
    pieces = name.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\r", "\r") for piece in pieces)


def _is_planned(wanted: Plan, came: _Came) -> bool:
    """A plan is what is digested: what it says of files, links and services has to be what came, and all of it."""
    scripts_and_files = {
        name: (f"{mode:04o}", digest)
        for name, (mode, digest) in came.files.items()
        if name.startswith(plan.FILES) or name in plan.SCRIPTS
    }
    return (
        scripts_and_files == {member.path: (member.mode, member.sha256) for member in wanted.members}
        and came.links == {link.path: link.target for link in wanted.links}
        and came.directories == {above for name in (*came.files, *came.links) for above in trees.parents(name)}
        and {name.split("/")[1] for name in came.files if name.startswith("services/")} == {*wanted.services}
    )


def open_file(arguments: list[str]) -> None:
    """A file named by the caller lies in the running root, which the base does not see: it becomes standard input."""
    name = arguments[-1] if arguments else "-"
    if name == "-" or name.startswith("--"):
        return
    try:
        # Where the caller stands the launcher says: chroot(8) goes to the top.
        there = rooted.resolve(LIVE, os.path.join(os.environ.get("PWD", "/"), name))
        os.dup2(os.open(there, os.O_RDONLY), 0)
    except OSError as error:
        raise invalid(
            f"no bundle at {name}: {error.strerror}", "name a bundle file, or - for standard input"
        ) from error
