from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyinfra_overlaymig
from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.migration.bundle import pack, packed
from pyinfra_overlaymig.migration.folder import load
from pyinfra_overlaymig.migration.model import Member, Migration
from pyinfra_overlaymig.migration.packing import Packets, compressed
from pyinfra_overlaymig.migration.runner import runner_archive, runner_digest, runner_files

ID = "20240206-001_demo"
PACKAGE = Path(pyinfra_overlaymig.__file__).parent
MANIFEST = """\
description: everything
state: [/srv/demo]
timeout: 60
verify_timeout: 5
services:
  web: {run: exec web, check: web-ping, ready_timeout: 7}
  db: {run: db, prepare: "true", finish: "true", notification_fd: 4}
"""
ODD_NAMES = [
    b"a b", b"new\nline", b"back\\slash", b"\xff\xfe", b"-n", b"tab\there", "\u00fc".encode(), b"cr\rhere",
    b"'quoted\"", b"x" * 200, b"\\n", b" ", b"*",
]  # fmt: skip

names = st.binary(min_size=1, max_size=200).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)


def make(top: Path) -> Path:
    """A migration with a member of every kind, its files named as badly as the kernel allows."""
    path = top / ID
    files = path / "files/etc/demo"
    files.mkdir(parents=True)
    (path / "migration.yaml").write_text(MANIFEST)
    (path / "install.sh").write_text("#!/bin/sh\n")
    (path / "verify.sh").write_text("#!/bin/sh\n")
    (path / "README.md").write_text("notes")
    for number, name in enumerate(ODD_NAMES):
        (files / os.fsdecode(name)).write_text(f"content {number}\n")
    (files / "tool").write_bytes(bytes(range(256)))
    (files / "tool").chmod(0o755)
    (files / "empty").touch()
    (path / "files/link").symlink_to("../etc//passwd")
    return path


def unpack(archive: bytes, into: Path) -> Path:
    """What the machine's own tar makes of it."""
    into.mkdir()
    subprocess.run(["tar", "-C", into, "--no-same-owner", "-xpzf", "-"], input=archive, check=True)
    return into


def check_sums(folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sha256sum", "--check", "--strict", "sums"], cwd=folder, capture_output=True, check=False,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip


def regular_files(folder: Path) -> set[bytes]:
    return {
        os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    }


def headers(archive: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape", encoding="utf-8") as tar:
        return tar.getmembers()


def test_the_same_migration_is_the_same_bytes(tmp_path: Path) -> None:
    """Packed twice, nothing differs, not even the time in the header of gzip."""
    path = make(tmp_path)
    assert pack(load(path)) == pack(load(path))
    assert pack(load(path))[4:8] == b"\0\0\0\0"


def test_where_and_whose_the_files_are_does_not_matter(tmp_path: Path) -> None:
    """Time, owner, umask and place of a checkout leave no trace in the bundle."""
    one = make(tmp_path / "one")
    before = os.umask(0o077)
    try:
        other = make(tmp_path / "other")
    finally:
        os.umask(before)
    (other / "files/etc/demo/tool").chmod(0o700)
    for path in [other, *other.rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)
        if os.geteuid() == 0:
            os.chown(path, 1234, 5678, follow_symlinks=False)
    assert (other / "files/etc/demo/empty").stat().st_mode & 0o777 == 0o600
    assert pack(load(one)) == pack(load(other))


def test_what_is_in_a_bundle(tmp_path: Path) -> None:
    """Plan, limits, scripts, files, links, service directories and sums; neither notes nor manifest."""
    archive = pack(load(make(tmp_path)))
    found = {one.name for one in headers(archive)}
    assert {name for name in found if not name.startswith("files/etc/demo/")} == {
        "plan", "limits", "sums", "install.sh", "verify.sh", "files", "files/etc", "files/etc/demo", "files/link",
        "services", "services/web", "services/web/log", "services/web/data", "services/db", "services/db/log",
        "services/web/run", "services/web/main", "services/web/pre-start", "services/web/log/run",
        "services/web/check", "services/web/data/check", "services/web/notification-fd", "services/web/finish",
        "services/db/run", "services/db/main", "services/db/pre-start", "services/db/log/run",
        "services/db/prepare", "services/db/finish", "services/db/notification-fd",
    }  # fmt: skip
    inside = {os.fsencode(name.removeprefix("files/etc/demo/")) for name in found if name.startswith("files/etc/demo/")}
    assert inside == {*ODD_NAMES, b"tool", b"empty"}


def test_members_have_no_owner_no_time_and_plain_modes(tmp_path: Path) -> None:
    """Everything is root's, of no time, 0755 or 0644; directories stand before what is in them."""
    found = headers(pack(load(make(tmp_path))))
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in found} == {(0, 0, "root", "root", 0)}
    assert {oct(one.mode) for one in found if not one.issym()} == {"0o755", "0o644"}
    assert all(one.isreg() or one.isdir() or one.issym() for one in found)
    seen: set[str] = set()
    for one in found:
        parent = one.name.rpartition("/")[0]
        assert not parent or parent in seen
        assert one.name not in seen
        seen.add(one.name)
    assert {one.name: oct(one.mode) for one in found}["install.sh"] == "0o755"


def test_real_tools_unpack_and_check_a_bundle(tmp_path: Path) -> None:
    """Tar and sha256sum, which are all a machine has, find every file as it was, whatever its name."""
    path = make(tmp_path)
    migration = load(path)
    there = unpack(pack(migration), tmp_path / "there")
    checked = check_sums(there)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(b": OK\n") == len(regular_files(there) - {b"sums"})
    assert (there / "sums").read_bytes().count(b"\n") == len(regular_files(there) - {b"sums"})
    for member in migration.members:
        arrived = there / member.path
        assert arrived.read_bytes() == member.source.read_bytes()
        assert arrived.stat().st_mode & 0o7777 == member.mode
    assert os.readlink(there / "files/link") == "../etc//passwd"  # noqa: PTH115 - Path would tidy it up
    assert (there / "plan").read_bytes() == migration.plan
    assert hashlib.sha256((there / "plan").read_bytes()).hexdigest() == migration.digest


def test_damage_is_found(tmp_path: Path) -> None:
    """A changed or a missing file does not pass the check, be its name ever so odd."""
    for number, damaged in enumerate((b"files/etc/demo/new\nline", b"files/etc/demo/\xff\xfe", b"plan")):
        there = unpack(pack(load(make(tmp_path / f"{number}"))), tmp_path / f"there{number}")
        file = there / os.fsdecode(damaged)
        file.write_bytes(file.read_bytes() + b"x")
        assert check_sums(there).returncode == 1
        file.unlink()
        assert check_sums(there).returncode == 1


@settings(max_examples=25)
@given(st.lists(names, unique=True, max_size=4))
def test_any_name_survives_tar_and_sums(found: list[bytes]) -> None:
    """Whatever bytes a file is called by, it arrives under that name and is checked under it."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "source"
        source.write_text("x")
        sha256 = hashlib.sha256(b"x").hexdigest()
        members = tuple(Member(f"files/{os.fsdecode(name)}", source, sha256, 0o644) for name in found)
        migration = Migration(id=ID, folder=Path(directory), description="x", members=members)
        there = unpack(pack(migration), Path(directory) / "there")
        assert regular_files(there) == {b"plan", b"limits", b"sums", *(b"files/" + name for name in found)}
        checked = check_sums(there)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("text", ["no more", "", "x"])
def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path, text: str) -> None:
    """A bundle never holds anything but what its plan says; whoever asks for more of it hears the same."""
    path = make(tmp_path)
    (path / "files/etc/demo/changed").write_text("y")
    migration = load(path)
    (path / "files/etc/demo/changed").write_text(text)
    packets = packed(migration)
    for _ in range(2):
        with pytest.raises(InvalidMigration, match="changed while it was being packed") as caught:
            list(packets)
        assert caught.value.file == path / "files/etc/demo/changed"


def test_a_file_that_goes_meanwhile_is_named(tmp_path: Path) -> None:
    """In words, and with its path."""
    path = make(tmp_path)
    migration = load(path)
    (path / "files/etc/demo/empty").unlink()
    with pytest.raises(InvalidMigration, match="cannot be read: no such file") as caught:
        pack(migration)
    assert caught.value.file == path / "files/etc/demo/empty"


def test_limits_say_how(tmp_path: Path) -> None:
    """How it is applied goes beside the plan, one a line; it is in the bundle and not in the digest."""
    migration = load(make(tmp_path))
    lines = [
        "timeout 60",
        "verify-timeout 5",
        "verify-retries 0",
        "drift refuse",
        "audit wanted",
        "snapshot no",
        "strict-order no",
    ]
    lines += ["ready-timeout db 60", "ready-timeout web 7", "restart db changed", "restart web changed"]
    assert migration.limits.decode().splitlines() == lines
    assert (unpack(pack(migration), tmp_path / "there") / "limits").read_bytes() == migration.limits
    assert b"timeout 60" not in migration.plan


@pytest.mark.parametrize("size", [0, 1, 32_703, 32_704, 32_705, 1 << 20])
def test_what_is_sent_is_packets(size: int) -> None:
    """Each is a packet of ssh, which has room for 32,704 bytes; they are made once, for whoever asks first."""
    data = os.urandom(size)
    packets = Packets(data[at : at + 1000] for at in range(0, size, 1000))
    first, second = iter(packets), iter(packets)
    found = [(one, next(second)) for one in first]
    assert all(one is other for one, other in found)
    assert len(found) == -(-size // 32_704)
    assert all(0 < len(packet) <= 32_704 for packet, _ in found)
    assert b"".join(packets) == data


def test_packets_tell_how_far_they_are(tmp_path: Path) -> None:
    """By the bytes of the files, not by what they are compressed to."""
    path = make(tmp_path)
    (path / "files/large").write_bytes(os.urandom(3 << 20) + bytes(3 << 20))
    migration = load(path)
    packets = packed(migration)
    until = [passed for _, passed in packets.counted()]
    assert until == sorted(until)
    assert (6 << 20) < until[-1] == packets.total
    assert b"".join(packets) == pack(migration)


def test_what_does_not_get_smaller_is_not_compressed() -> None:
    """Zlib takes longer for it than any network; all else is, and it is one gzip file for whoever reads it."""
    random, text = os.urandom(5 << 20), b"all work and no play\n" * 250_000
    made = b"".join(compressed([random, text]))
    assert len(random) < len(made) < len(random) * 1.02
    assert gzip.decompress(made) == random + text


def test_the_runner_is_whole() -> None:
    """It arrives as it lies here, with the formats and its byte code; only the launcher is executable."""
    archive, digest = runner_archive(), runner_digest()
    found = {one.name: one.mode for one in headers(archive) if one.isreg()}
    program = "pyinfra_overlaymig/runner/system-migrate"
    modules = {path for room in ("format", "runner") for path in (PACKAGE / room).rglob("*.py")}
    here = {f"{path.relative_to(PACKAGE.parent)}" for path in {*modules, PACKAGE / "__init__.py"}}
    code = {cache_from_source(path) for path in here}
    assert found.keys() == here | code | {program, "digest"}
    assert [name for name, mode in found.items() if mode & 0o111] == [program]
    assert len(digest) == 64


def test_the_runner_digest_is_what_one_computes_by_hand(tmp_path: Path) -> None:
    """Its digest is that of `sha256sum` over its files, sorted, so that anyone can check a machine."""
    archive, digest = runner_archive(), runner_digest()
    there = unpack(archive, tmp_path / "runner")
    sources = "find . -type f ! -name digest ! -name '*.pyc' | cut -c3- | LC_ALL=C sort"
    by_hand = f"{sources} | xargs sha256sum | sha256sum | cut -d' ' -f1"
    found = subprocess.run(["sh", "-c", by_hand], cwd=there, capture_output=True, text=True, check=True)
    assert found.stdout == f"{digest}\n"
    assert (there / "digest").read_text() == f"{digest}\n"


def test_the_runner_needs_nothing_else(tmp_path: Path) -> None:
    """With no packages but python's own, and from any directory, each of its modules can be imported."""
    there = unpack(runner_archive(), tmp_path / "runner")
    names = [
        f"{path.relative_to(there).with_suffix('')}".replace("/", ".")
        for path in sorted(there.rglob("*.py"))
        if path.stem not in ("__init__", "__main__")
    ]
    code = f"import sys; sys.path.insert(0, {str(there)!r})\n" + "".join(f"import {name}\n" for name in names)
    program = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", code]
    found = subprocess.run(program, capture_output=True, text=True, check=False, cwd="/")
    assert found.returncode == 0, found.stderr


def test_the_runner_is_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the package with other times, owners and modes, and with byte code, has the same runner."""
    package = tmp_path / "copy"
    for room in ("format", "runner"):
        shutil.copytree(PACKAGE / room, package / room)
    shutil.copy(PACKAGE / "__init__.py", package)
    (package / "format/__pycache__").mkdir(exist_ok=True)
    (package / "format/__pycache__/ids.cpython-311.pyc").write_bytes(b"stale")
    for path in package.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    monkeypatch.setattr("pyinfra_overlaymig.migration.runner.resources.files", lambda _: package)
    digest, files = runner_digest(), runner_files()
    for made in (runner_files, runner_digest):
        made.cache_clear()
    assert (runner_digest(), runner_files()) == (digest, files)


def test_the_byte_code_that_goes_with_the_runner_is_that_of_its_sources(tmp_path: Path) -> None:
    """Python takes it as it is: a module with other sources beside it is what its byte code says."""
    there = unpack(runner_archive(), tmp_path / "runner")
    for path in there.rglob("*.py"):
        path.write_text("raise SystemExit('its source was read')\n")
    code = f"import sys; sys.path.insert(0, {str(there)!r}); import pyinfra_overlaymig.runner.cli"
    found = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
