from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pyinfra_overlaymig.runner import copies, files, immovable, linux, trees
from tests import tree_model
from tests.volume import volume

number = itertools.count()


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with volume() as directory:
        yield directory


@pytest.fixture
def place(disk: Path) -> Path:
    made = disk / str(next(number))
    made.mkdir()
    return made


@given(done=tree_model.many)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_copy_is_as_cp_makes_it(disk: Path, done: list[tuple[Any, ...]]) -> None:
    """Kinds, owners, modes, attributes, ACLs, times, hard links."""
    place = disk / str(next(number))
    source = place / "source"
    source.mkdir(parents=True)
    tree_model.in_turn(source, done)
    subprocess.run(["cp", "-a", source, place / "cp"], check=True)
    copies.copy_tree(str(source), str(place / "ours"))
    assert tree_model.picture(place / "ours") == tree_model.picture(place / "cp")


def test_file_that_is_replaced_while_it_is_linked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has found the one before by then, and says that there is none: the new one is linked."""
    (place / "source").mkdir()
    (place / "source/file").write_text("before")
    link = os.link

    def late(source: str, target: str, **itself: bool) -> None:
        if (place / "source/file").read_text() == "before":
            (place / "source/new").write_text("after")
            (place / "source/new").replace(place / "source/file")
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        link(source, target, **itself)

    monkeypatch.setattr(os, "link", late)
    trees.link_tree(str(place / "source"), str(place / "ours"))
    assert (place / "ours/file").read_text() == "after"


@given(done=tree_model.many)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_links_are_as_cp_makes_them(disk: Path, done: list[tuple[Any, ...]]) -> None:
    place = disk / str(next(number))
    source = place / "source"
    source.mkdir(parents=True)
    tree_model.in_turn(source, done)
    trees.link_tree(str(source), str(place / "ours"))
    assert tree_model.picture(place / "ours") == tree_model.picture(source)
    for path, found in trees.walk(str(place / "ours")):
        assert os.path.isdir(place / "ours" / path) or found.st_ino == os.lstat(source / path).st_ino
    assert trees.remove_tree(str(place / "ours"))
    assert not (place / "ours").exists()


def test_existing_entries_stay_when_links_are_laid_over_a_tree(place: Path) -> None:
    for path, text in {"source/d/new": "s", "source/d/old": "s", "target/d/old": "t", "source/x/y": "s"}.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)
    (place / "target/x").write_text("a file")
    trees.link_tree(str(place / "source"), str(place / "target"), skip_existing=True)
    assert (place / "target/d/old").read_text() == "t"
    assert (place / "target/d/new").read_text() == "s"
    assert (place / "target/x").read_text() == "a file"


def test_capabilities_and_setuid_bits_outlive_the_change_of_owner(place: Path) -> None:
    """A change of owner takes both away."""
    source = place / "source"
    source.write_text("x")
    os.chown(source, 7, 7)
    source.chmod(0o6755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source, "security.capability", capability)
    copies.copy_entry(str(source), str(place / "target"))
    assert tree_model.look(str(place / "target")) == tree_model.look(str(source))


def test_holes_stay_holes(place: Path) -> None:
    with (place / "source").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"in the middle")
        file.truncate(120 << 30)
    copies.copy_entry(str(place / "source"), str(place / "target"), reflink=False)
    assert os.stat(place / "target").st_size == 120 << 30
    assert os.stat(place / "target").st_blocks < 100
    with (place / "target").open("rb") as copy:
        copy.seek(50 << 20)
        assert copy.read(14) == b"in the middle\0"


def test_a_full_disk_is_a_failure_and_not_something_that_went(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cp -al … || :` took the one for the other."""
    (place / "source").mkdir()
    (place / "source/file").write_text("x")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="no space"):
        trees.link_tree(str(place / "source"), str(place / "target"))


def test_a_file_that_has_all_the_names_it_can_have_is_copied(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlays give all their whiteouts one inode."""
    (place / "source").mkdir()
    os.mknod(place / "source/gone", 0o20000, 0)

    def too_many(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr(os, "link", too_many)
    trees.link_tree(str(place / "source"), str(place / "target"))
    assert trees.is_whiteout(os.lstat(place / "target/gone"))


def deep(place: Path, depth: int, name: str) -> None:
    """A tree in ``place`` that is ``depth`` directories deep, with a file in the last one."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    with open(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here), "w") as file:
        file.write("x")
    os.close(here)


@pytest.mark.parametrize(
    ("depth", "name"), [(1300, "abc"), (2100, "a"), (40, "a" * 250), (16, "ä" * 127), (15, "y" * 254)]
)
def test_very_deep_trees(place: Path, depth: int, name: str) -> None:
    """Deeper than a path may be long, and than files may be open: they are linked, seen and removed."""
    source, target = place / "tree/source", place / "tree/target"
    source.mkdir(parents=True)
    deep(source, depth, name)
    trees.link_tree(str(source), str(target))
    found = dict(trees.walk(str(source)))
    copied = dict(trees.walk(str(target)))
    assert [len(found), *found] == [depth + 1, *copied]
    path = "/".join([*[name] * depth, "file"])
    assert copied[path].st_ino == found[path].st_ino
    assert trees.lstat(f"{target}/{path}") == copied[path]
    assert trees.lstat(f"{target}/x/{path}") is None
    assert trees.remove_tree(str(place / "tree"))
    assert not (place / "tree").exists()


def test_what_cannot_be_removed_is_told_and_the_rest_goes(place: Path) -> None:
    """A mount, whose contents are somebody's. What is immutable goes: it was given up."""
    (place / "tree/d/held").mkdir(parents=True)
    for name in ("tree/d/free", "tree/other"):
        (place / name).write_text("x")
    subprocess.run(["chattr", "+i", place / "tree/d/free", place / "tree/d"], check=True)
    (place / "volume/d").mkdir(parents=True)
    (place / "volume/d/precious").write_text("x")
    linux.mount(str(place / "volume"), str(place / "tree/d/held"), flags=linux.MS_BIND)
    try:
        errors: list[OSError] = []
        assert not trees.remove_tree(str(place / "tree"), errors)
        assert [error.filename for error in errors] == [str(place / "tree/d/held")]
        assert os.listdir(place / "tree/d") == ["held"]
        assert (place / "volume/d/precious").read_text() == "x"
        with pytest.raises(OSError, match="busy"):
            trees.remove_tree(str(place / "tree"))
    finally:
        linux.umount(str(place / "tree/d/held"))
        subprocess.run(["chattr", "-i", place / "tree/d"], check=True)


@pytest.mark.parametrize("how", ["+i record", "+a record", "+i .", "+a ."])
def test_records_are_written_whatever_somebody_made_of_them(place: Path, how: str) -> None:
    """One that cannot be written would shut the way back; a directory stays what somebody made it."""
    (place / "own").mkdir()
    (place / "own/record").write_text("old")
    (place / "own/current").symlink_to("1")
    flag, name = how.split()
    subprocess.run(["chattr", flag, place / "own" / name], check=True)
    try:
        files.write_file(str(place / "own/record"), "new")
        files.replace_link("2", str(place / "own/current"))
        assert (place / "own/record").read_text() == "new"
        assert os.readlink(place / "own/current") == "2"
        assert sorted(os.listdir(place / "own")) == ["current", "record"]
        assert bool(immovable.why_at(str(place / "own"))) == (name == ".")
    finally:
        subprocess.run(["chattr", "-i", "-a", place / "own", place / "own/record"], check=True)


def test_links_are_removed_and_not_followed(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "elsewhere/file").write_text("x")
    (place / "tree").mkdir()
    (place / "tree/link").symlink_to(place / "elsewhere")
    (place / "link").symlink_to(place / "elsewhere")
    assert trees.remove_tree(str(place / "tree"))
    assert trees.remove_tree(str(place / "link"))
    assert trees.remove_tree(str(place / "nothing/at/all"))
    assert (place / "elsewhere/file").exists()


def test_usage_is_what_du_says(place: Path) -> None:
    (place / "tree/d").mkdir(parents=True)
    (place / "tree/one").write_bytes(b"x" * 100_000)
    os.link(place / "tree/one", place / "tree/d/two")
    (place / "tree/link").symlink_to("one")
    blocks = subprocess.run(["du", "-sx", "-B1", place / "tree"], capture_output=True, text=True, check=True).stdout
    assert trees.disk_usage(str(place / "tree")) == int(blocks.split()[0])


def test_nothing_is_read_as_empty(place: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(trees.walk(str(place / "missing")))
