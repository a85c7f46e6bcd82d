"""What nobody's overlaymig packs, straight to the code that unpacks: exit 4 or 3, soon, and never more than fits."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyinfra_overlaymig.format import FormatError, limits, plan
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from pyinfra_overlaymig.runner import bundle
from pyinfra_overlaymig.runner.say import Leave
from tests.forged import Part, forge, parts

ID = "20250201-001_hostile"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle with a file of a difficult name, a long one, a link and a service."""
    folder = tmp_path_factory.mktemp("migrations") / ID
    (folder / "files/etc").mkdir(parents=True)
    (folder / 'files/etc/new\nline \\ "q" \udcff').write_text("x\n")
    (folder / f"files/etc/{'n' * 200}").write_text("long\n")
    (folder / "files/etc/link").symlink_to("t" * 300)
    (folder / "migration.yaml").write_text("description: x\nservices: {web: {run: exec sleep 1}}\n")
    (folder / "install.sh").write_text("#!/bin/sh\n")
    return pack(load(folder))


def take(data: bytes, tmp_path: Path) -> int:
    """What receiving it leaves with, 0 where it is taken."""
    source = tmp_path / "bundle"
    source.write_bytes(data)
    descriptor = os.open(source, os.O_RDONLY)
    try:
        bundle.receive(str(tmp_path / "incoming"), descriptor)
    except Leave as leaving:
        return leaving.code
    finally:
        os.close(descriptor)
    return 0


def plain(data: bytes) -> bytes:
    return gzip.decompress(data)


def _number(size: int) -> bytes:
    """A size as GNU's tar writes it: as octal digits, or in base 256 where these do not do."""
    if 0 <= size < 8**11:
        return b"%011o\0" % size
    return (b"\x80" if size >= 0 else b"\xff") + (size % 256**11).to_bytes(11, "big")


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: object) -> bytes:
    """One header, of whatever size it says."""
    one = tarfile.TarInfo(name)
    one.type = kind
    for key, value in more.items():
        setattr(one, key, value)
    block = bytearray(one.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = _number(size)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(**fields: str) -> bytes:
    """An extended header with these fields, before whatever follows."""
    body = b""
    for key, value in fields.items():
        line = f" {key.replace('__', '.')}={value}\n".encode("utf-8", "surrogateescape")
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length += 1
        body += str(length).encode() + line
    return header("x", tarfile.XHDTYPE, len(body)) + body + bytes(-len(body) % 512)


FILE = header("files/etc/x", size=1) + b"x" + bytes(511)
BEFORE: dict[str, bytes] = {
    "extended header of gigabytes": header("x", tarfile.XHDTYPE, 8 << 30),
    "global header of gigabytes": header("x", tarfile.XGLTYPE, 8 << 30),
    "name of gigabytes": header("x", tarfile.GNUTYPE_LONGNAME, 8 << 30),
    "link of gigabytes": header("x", tarfile.GNUTYPE_LONGLINK, 8 << 30),
    "name without an end": header("x", tarfile.GNUTYPE_LONGNAME, 512) + b"n" * 512 + FILE,
    "size of an exabyte": header("files/etc/x", size=1 << 60),
    "size below nothing": header("files/etc/x", size=-512),
    "header below nothing": header("x", tarfile.XHDTYPE, -512),
    "extended size": pax(size=str(1 << 62)) + FILE,
    "extended size below nothing": pax(size="-1") + FILE,
    "extended size that is none": pax(size="x") + FILE,
    "extended path out": pax(path="../../evil") + FILE,
    "extended path to the root": pax(path="/etc/evil") + FILE,
    "extended path of nothing": pax(path="") + FILE,
    "extended path with NUL": pax(path="files/etc/a\0b") + FILE,
    "extended link with NUL": pax(linkpath="a\0b") + header("files/etc/x", tarfile.SYMTYPE),
    "extended times": pax(mtime="1e999", uid="x") + FILE,
    "headers upon headers": pax(comment="x") * 2000 + FILE,
    "sparse of GNU": header("files/etc/x", tarfile.GNUTYPE_SPARSE, 1) + b"x" + bytes(511),
    "sparse by extension": pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="9" * 15) + FILE,
    "sparse by map": pax(GNU__sparse__map="0,1,1099511627776,0", GNU__sparse__size="1099511627776") + FILE,
    "contiguous": header("files/etc/x", tarfile.CONTTYPE, 1) + b"x" + bytes(511),
    "device": header("files/etc/x", tarfile.BLKTYPE, devmajor=8),
    "kind nobody knows": header("files/etc/x", b"Z", 1) + b"x" + bytes(511),
    "directory with contents": header("files/etc/x", tarfile.DIRTYPE, 512) + b"x" * 512,
    "directory twice": header("files", tarfile.DIRTYPE) * 2,
    "name longer than any": header("x", tarfile.GNUTYPE_LONGNAME, 6144) + b"files/" + b"a/" * 2500 + bytes(1138) + FILE,
    "part of a name longer than any": pax(path=f"files/{'n' * 300}") + FILE,
    "plan of gigabytes": header("plan", size=70 << 20),
    "not a header": b"\xff" * 512,
    "one of another checksum": FILE.replace(b"etc", b"abc"),
}  # fmt: skip


@pytest.mark.parametrize("what", BEFORE)
def test_archive_that_nothing_packs(good: bytes, tmp_path: Path, what: str) -> None:
    """In front of a bundle that is right: none of it is taken, and none takes long or much memory."""
    begun = time.monotonic()
    for after in (plain(good), b""):
        assert take(gzip.compress(BEFORE[what] + after, 1), tmp_path) in (3, 4)
    assert time.monotonic() - begun < 5
    made = [one.name for one in tmp_path.rglob("*") if one.is_file() and one.stat().st_size > 1 << 20]
    assert made == []


def test_what_is_wrong_is_said_in_few_words(tmp_path: Path) -> None:
    """By the name of the member or service, however much came."""
    folder = tmp_path / ID
    (folder / "files/etc").mkdir(parents=True)
    (folder / "files/etc/link").symlink_to("target")
    (folder / "migration.yaml").write_text("description: x\nservices: {web: {run: exec sleep 1}}\n")
    (folder / "install.sh").write_text("#!/bin/sh\n")
    found = parts(pack(load(folder)))
    text = {one.name: one.data or b"" for one in found}
    often = text["plan"].replace(b"service web\n", b"depends 20200101-001_x\n" * 20000 + b"service web\n")
    for words, forged in {
        "'install.sh' twice": forge(found, Part("install.sh", text["install.sh"])),
        "'files/etc' twice": forge(found, Part("files/etc")),
        "'files/etc/link' twice": forge(found, Part("files/etc/link", link="x")),
        "no service of the plan": forge(found, changed={"limits": text["limits"] + b"restart other always\n"}),
        "twice: 20200101-001_x": forge(found, changed={"plan": often}),
        "the limit timeout is 'x999": forge(found, changed={"limits": b"timeout x" + b"9" * 50000 + b"\n"}),
    }.items():
        (tmp_path / "bundle").write_bytes(forged)
        with (tmp_path / "bundle").open("rb") as source, pytest.raises(Leave) as left:
            bundle.receive(str(tmp_path / "incoming"), source.fileno())
        assert left.value.code == 4
        assert words in left.value.what
        assert len(left.value.what) < 600


def test_archive_that_others_pack(good: bytes, tmp_path: Path) -> None:
    """The same members by another tar, with extended headers, are the same bundle."""
    assert take(good, tmp_path) == 0
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(good)) as source,
        tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as target,
    ):
        for one in source:
            one.mtime = 1.5
            target.addfile(one, source.extractfile(one) if one.isreg() else None)
    assert take(buffer.getvalue(), tmp_path) == 0
    # More than one piece, as of pigz, or of `cat`.
    whole = plain(good)
    assert take(gzip.compress(whole[:700]) + gzip.compress(whole[700:]), tmp_path) == 0


def test_packing_that_never_ends(good: bytes, tmp_path: Path) -> None:
    """Zeros without end after the archive, or in a file: a few kilobytes that unpack to terabytes."""
    zeros = gzip.compress(bytes(64 << 20), 9)
    assert take(gzip.compress(plain(good)) + zeros * 100, tmp_path) == 4
    assert (
        take(gzip.compress(header("files", tarfile.DIRTYPE) + header("files/x", size=1 << 45)) + zeros, tmp_path) == 3
    )
    assert take(b"", tmp_path) == 4
    assert take(b"\x1f\x8b", tmp_path) == 4
    assert take(good + b"noise", tmp_path) == 4


def test_crowded_disk_is_left_as_it_is(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services live there, too: what preflight wants to be free is not used up by what is refused afterwards."""
    real = os.statvfs(tmp_path)
    for full in ({"f_bavail": 16000, "f_frsize": 4096}, {"f_ffree": 100, "f_files": 1000}):
        found = {key: getattr(real, key) for key in ("f_bavail", "f_frsize", "f_ffree", "f_files")} | full

        def statvfs(_: str, found: dict[str, int] = found) -> object:
            return type("Found", (), found)

        monkeypatch.setattr(os, "statvfs", statvfs)
        assert take(good, tmp_path) == 3


def test_bytes_by_chance(good: bytes, tmp_path: Path) -> None:
    """Whatever is changed in one that is right, by chance: it is refused, or the same one still; nothing else."""
    dice, whole = random.Random(14), bytearray(plain(good))  # noqa: S311 - no secret
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(dice.choice((1, 1, 3, 30))):
            changed[dice.randrange(len(changed) if dice.random() < 0.3 else 4096)] = dice.randrange(256)
        if dice.random() < 0.2:
            del changed[dice.randrange(len(changed)) :]
        assert take(gzip.compress(bytes(changed), 1), tmp_path) in (0, 3, 4)


@pytest.mark.parametrize(("name", "parse"), [("plan", plan.parse), ("limits", limits.parse)])
def test_text_by_chance(good: bytes, name: str, parse: Callable[[str], object]) -> None:
    """Plans and limits that anybody wrote are right, or a FormatError."""
    (text,) = (one.data for one in parts(good) if one.name == name)
    assert text
    dice = random.Random(14)  # noqa: S311 - no secret
    words = [
        *text.decode().split(),
        "",
        "\\",
        "\\000",
        "\\-",
        "9" * 5000,
        "-1",
        "\udcff",
        "\u0661",
        "\x00",
        "/",
        "..",
        "\r",
    ]
    for _ in range(3000):
        lines = text.decode().splitlines(keepends=True)
        for _ in range(dice.choice((1, 1, 2, 5))):
            at = dice.randrange(len(lines))
            line = lines[at].split(" ")
            line[dice.randrange(len(line))] = dice.choice(words) + dice.choice(("", "\n", "\n", " "))
            lines[at] = dice.choice((" ".join(line), lines[at] * 2, "", dice.choice(lines)))
        try:
            parse("".join(lines))
        except FormatError:
            continue
