"""The runner as it goes to a machine: its files, the digest that names them, and their byte code.

Byte code is for machines whose base has the same minor version of Python as the operator. There `init` has nothing to
compile, which is most of what it does; elsewhere it compiles as if there were none.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.migration.bundle import Entry, by_path, sha256, tar_gz
from pyinfra_overlaymig.migration.packing import Packets

PACKAGE = "pyinfra_overlaymig"
RUNNER = "runner"
LAUNCHER = f"{PACKAGE}/{RUNNER}/system-migrate"
"""Where the archive has the program."""
_UNCHECKED = (1).to_bytes(4, "little")
"""PEP 552: byte code that names its source by its hash, and is not compared with it."""


@cache
def runner_digest() -> str:
    """What a machine reports once it has this runner (hex): of the listing that `sha256sum` makes of its sources."""
    listing = "".join(f"{file.sha256}  {file.path}\n" for file in runner_files())
    return sha256(listing.encode("ascii"))


@cache
def runner_archive() -> bytes:
    """The runner as a tar.gz, with its digest; half a second of work, which is done where a machine needs it."""
    digest = Entry("digest", f"{runner_digest()}\n".encode("ascii"))
    return b"".join(tar_gz([*runner_files(), *_byte_code(), digest]))


def runner_packets() -> Packets:
    """The same in packets; a plan that only says that they would be sent does not make them."""
    return Packets(_when_asked_for())


def _when_asked_for() -> Iterator[bytes]:
    yield runner_archive()


@cache
def runner_files() -> tuple[Entry, ...]:
    """The package as it lies here, but for what only the operator's side needs; in the order of their paths."""
    top = resources.files(PACKAGE)
    if not (top / RUNNER / "system-migrate").is_file():
        raise OverlaymigError(
            "the runner is not in this installation of overlaymig",
            hint="install the package again, or run from a whole checkout",
        )
    found = [Entry(f"{PACKAGE}/__init__.py", (top / "__init__.py").read_bytes())]
    for room in ("format", RUNNER):
        found += _of_room(top / room, f"{PACKAGE}/{room}")
    return tuple(sorted(found, key=by_path))


def _of_room(room: Traversable, path: str) -> Iterator[Entry]:
    for one in room.iterdir():
        if one.is_dir():
            yield from _of_room(one, f"{path}/{one.name}")
        elif one.name.endswith(".py"):
            yield Entry(f"{path}/{one.name}", one.read_bytes())
        elif one.name == "system-migrate":
            yield Entry(f"{path}/{one.name}", one.read_bytes(), 0o755)


def _byte_code() -> Iterator[Entry]:
    for file in runner_files():
        if file.path.endswith(".py"):
            code = marshal.dumps(compile(file.content, file.path, "exec", dont_inherit=True, optimize=0))
            content = MAGIC_NUMBER + _UNCHECKED + source_hash(file.content) + code
            yield Entry(cache_from_source(file.path), content)
