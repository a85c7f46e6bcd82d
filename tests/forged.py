"""Bundles that nobody's overlaymig packs: a good one, taken apart and put together otherwise."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """A member of a bundle: a file, a directory (no ``data``, no ``link``), or a link of the type ``kind``."""

    name: str
    data: bytes | None = None
    link: str = ""
    kind: bytes = tarfile.SYMTYPE
    mode: int = 0o644


def parts(bundle: bytes) -> list[Part]:
    """What is in a bundle."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        for one in archive:
            # It would follow a link.
            content = archive.extractfile(one) if one.isreg() else None
            found.append(Part(one.name, content.read() if content else None, one.linkname, one.type, one.mode))
    return found


def forge(found: list[Part], *more: Part, drop: str = "", changed: Mapping[str, bytes] | None = None) -> bytes:
    """A bundle of these members, ``more`` of them, and with other contents of those that are named; its sums fit."""
    changed = changed or {}
    kept = [one for one in found if one.name not in ("sums", drop)]
    made = [one._replace(data=changed[one.name]) if one.name in changed else one for one in kept] + list(more)
    sums = "".join(f"{hashlib.sha256(one.data).hexdigest()}  {one.name}\n" for one in made if one.data is not None)
    return _packed([*made, Part("sums", sums.encode())])


def _packed(made: list[Part]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for one in made:
            header = tarfile.TarInfo(one.name)
            header.mode = one.mode
            if one.data is not None:
                header.size = len(one.data)
            else:
                header.type = one.kind if one.link else tarfile.DIRTYPE
                header.linkname = one.link
            archive.addfile(header, io.BytesIO(one.data or b""))
    return buffer.getvalue()
