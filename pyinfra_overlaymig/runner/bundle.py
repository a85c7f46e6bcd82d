"""Bundles: received, and refused before anything is touched. Whoever sends one is root, and may be mistaken."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import tarfile
import zlib
from typing import NamedTuple

from pyinfra_overlaymig.format import FormatError, limits, plan
from pyinfra_overlaymig.format.paths import DATA
from pyinfra_overlaymig.runner import files
from pyinfra_overlaymig.runner.say import Leave, invalid, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.format.plan import Plan

_ALONE = ("plan", "limits", "install.sh", "verify.sh", "sums")
_NEEDED = ("plan", "limits", "install.sh", "sums")
_TREES = ("files", "services")
_PIECE = 1 << 20
_NO_ROOM = "remove what is not needed, or make the volume larger"


class Bundle(NamedTuple):
    """An unpacked bundle in ``directory``."""

    directory: str
    plan: Plan
    limits: Limits


def receive(directory: str, source: int = 0) -> Bundle:
    """Unpacks the tar.gz that can be read from ``source`` into ``directory``, and checks that it came whole."""
    files.drop(directory)
    files.make_dirs(directory, mode=0o700)
    try:
        with os.fdopen(source, "rb", closefd=False) as stream, gzip.GzipFile(fileobj=stream) as packed:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                digests = {member.name: _unpack(archive, member, directory) for member in archive}
            # An archive ends before its packing does, whose checksum is the last that comes.
            while packed.read(_PIECE):
                continue
    except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        raise invalid(
            f"this is no bundle, or only a part of one: {error}", "pack it again, or upload it again"
        ) from error
    except OSError as error:
        raise _unpacking_failed(error) from error
    for name in _NEEDED:
        if name not in digests:
            raise invalid(f"the bundle lacks {name}", "pack it with this version of overlaymig")
    return _checked(directory, {name: digest for name, digest in digests.items() if digest is not None})


def _unpacking_failed(error: OSError) -> Leave:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return refused(f"there is no room in {DATA} for the bundle", _NO_ROOM)
    # gzip's own errors are of this kind, too.
    return invalid(f"this is no bundle, or only a part of one: {error}", "pack it again, or upload it again")


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: str) -> str | None:
    """Writes one member; the SHA-256 of a file. Refuses what has no business in a bundle."""
    name = member.name
    parts = name.split("/")
    inside = parts[0] in _TREES or (len(parts) == 1 and name in _ALONE)
    if not inside or "" in parts or "." in parts or ".." in parts:
        raise ValueError(f"it holds {name!r}, which is no part of one")
    target = f"{directory}/{name}"
    if member.isdir():
        os.mkdir(target, 0o755)
        return None
    if member.issym() and parts[0] == "files" and len(parts) > 1:
        os.symlink(member.linkname, target)
        return None
    if not member.isreg() or (parts[0] in _TREES and len(parts) == 1):
        raise ValueError(f"it holds {name!r}, which is neither a file, a directory nor a link")
    return _write(archive, member, target)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> str:
    digest = hashlib.sha256()
    source = archive.extractfile(member)
    # No link is followed: what is above came from this bundle as a directory, or this fails.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        while source and (piece := source.read(_PIECE)):
            digest.update(piece)
            file.write(piece)
        os.fchmod(descriptor, member.mode & 0o755)
    return digest.hexdigest()


def _checked(directory: str, digests: dict[str, str]) -> Bundle:
    text = {name: files.read(f"{directory}/{name}") for name in ("plan", "limits", "sums")}
    found = {name: digest for name, digest in digests.items() if name != "sums"}
    if _sums(text["sums"]) != found:
        raise invalid("the bundle is damaged: its checksums do not match", "upload it again")
    try:
        wanted = plan.parse(text["plan"])
        how = limits.parse(text["limits"])
    except FormatError as error:
        raise invalid(
            f"the bundle is not right: {error}", "run machine_prepared, which brings a matching runner"
        ) from error
    _check_members(wanted, found)
    return Bundle(directory, wanted, how)


def _sums(text: str) -> dict[str, str]:
    """Of `sha256sum`'s lines the digests by name; a line that begins with a backslash has an escaped name."""
    found = {}
    for line in text.removesuffix("\n").split("\n"):
        marked = line.startswith("\\")
        digest, _, name = line.removeprefix("\\").partition("  ")
        found[_plain(name) if marked else name] = digest
    return found


def _plain(name: str) -> str:
    pieces = name.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\r", "\r") for piece in pieces)


def _check_members(wanted: Plan, found: dict[str, str]) -> None:
    """A plan is what is digested: what it says of files has to be what came."""
    said = {member.path: member.sha256 for member in wanted.members}
    came = {
        name: digest
        for name, digest in found.items()
        if name.startswith("files/") or name in ("install.sh", "verify.sh")
    }
    if said != came:
        raise invalid("the bundle is damaged: its files are not those of its plan", "pack it again, or upload it again")


def open_file(arguments: list[str]) -> None:
    """A file named by the caller lies in the running root, which the base does not see: it becomes standard input."""
    name = arguments[-1] if arguments else "-"
    if name == "-" or name.startswith("--"):
        return
    try:
        os.dup2(os.open(f"/proc/1/root/{name}" if name.startswith("/") else name, os.O_RDONLY), 0)
    except OSError as error:
        raise invalid(
            f"no bundle at {name}: {error.strerror}", "name a bundle file, or - for standard input"
        ) from error
