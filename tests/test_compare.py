from __future__ import annotations

import hashlib
import itertools
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pyinfra_overlaymig.format.changes import Change
from pyinfra_overlaymig.format.octal import escape_path
from pyinfra_overlaymig.runner import compare, linux, trees
from pyinfra_overlaymig.runner.contents import Content
from pyinfra_overlaymig.runner.entries import Entry, attributes
from tests import tree_model
from tests.volume import volume

number = itertools.count()
anywhere = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
Fields = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with volume() as directory:
        yield directory


@pytest.fixture
def place(disk: Path) -> Path:
    return made(disk)


def made(disk: Path) -> Path:
    place = disk / str(next(number))
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    return place


@contextmanager
def overlay(place: Path) -> Iterator[Path]:
    data = f"redirect_dir=off,metacopy=off,index=off,lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    linux.mount("overlay", str(place / "merged"), "overlay", 0, data)
    try:
        yield place / "merged"
    finally:
        linux.umount(str(place / "merged"))


def compared(place: Path, paths: list[str] | None = None) -> compare.Comparison:
    return compare.compare(str(place / "upper"), str(place / "lower"), paths)


def naive(top: Path) -> Fields:
    """What changes.list would say of each entry of a tree, but for its time and other names."""
    found: Fields = {}
    for path, at in trees.walk(str(top)):
        place = f"{top}/{path}"
        is_file = stat.S_ISREG(at.st_mode)
        kind = {"-": "f"}.get(stat.filemode(at.st_mode)[0], stat.filemode(at.st_mode)[0])
        digest = hashlib.sha256(Path(place).read_bytes()).hexdigest() if is_file else "-"
        note = f"-> {escape_path(str(Path(place).readlink()))}" if kind == "l" else ""
        found[escape_path(path)] = (
            kind, f"{at.st_mode & 0o7777:o}", str(at.st_uid), str(at.st_gid), str(at.st_size if is_file else 0), digest,
            attributes(place)[0] or "-", note,
        )  # fmt: skip
    return found


def without(tree: Fields, top: str) -> Fields:
    return {path: what for path, what in tree.items() if path != top and not path.startswith(f"{top}/")}


def changed(tree: Fields, changes: list[Change]) -> Fields:
    """``tree`` after ``changes``."""
    for one in changes:
        if one.op == "D" or (one.op == "C" and one.kind == "d") or (one.op == "C" and tree[one.path][0] == "d"):
            tree = without(tree, one.path)
        if one.op != "D":
            note = one.note if one.kind == "l" else ""
            tree = {**tree, one.path: (*one[1:8], note)}
    return tree


@given(base=tree_model.many, done=tree_model.many)
@anywhere
def test_changes_lead_from_the_stack_to_what_the_mount_shows(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]]
) -> None:
    """And none of them says what is so already."""
    place = made(disk)
    tree_model.in_turn(place / "lower", base)
    before = naive(place / "lower")
    with overlay(place) as merged:
        tree_model.in_turn(merged, done)
        after = naive(merged)
        found = compared(place)
    assert changed(before, found.changes) == after
    # A directory that hides what was there brings all of it anew, be it as before.
    hiding = {one.path for one in found.changes if (one.op, one.kind) == ("C", "d")}
    for one in found.changes:
        if one.path not in (*found.times, *hiding) and not hiding.intersection(trees.parents(one.path)):
            assert before.get(one.path) != after.get(one.path)
    for path in (*found.times, *found.carriers):
        assert before[path] == after[path]
    names = [os.fsencode(one.path) for one in found.changes]
    assert names == sorted(set(names))


@given(base=tree_model.many, done=tree_model.many)
@anywhere
def test_what_is_no_change_can_be_taken_out(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]]
) -> None:
    place = made(disk)
    tree_model.in_turn(place / "lower", base)
    with overlay(place) as merged:
        tree_model.in_turn(merged, done)
        after = naive(merged)
    found = compared(place)
    compare.prune(str(place / "upper"), found)
    trees.remove_tree(str(place / "work"))
    (place / "work").mkdir()
    with overlay(place) as merged:
        assert naive(merged) == after
    again = compared(place)
    assert (again.changes, again.unchanged) == (found.changes, [])


@given(base=tree_model.many, done=tree_model.many)
@anywhere
def test_some_paths_are_compared_as_all_are(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]]
) -> None:
    """Also below a directory that hides the stack and is not among them."""
    place = made(disk)
    tree_model.in_turn(place / "lower", base)
    with overlay(place) as merged:
        tree_model.in_turn(merged, done)
    whole = compared(place)
    paths = [path for path, _ in trees.walk(str(place / "upper"))][::2]
    some = compared(place, paths)
    wanted = {escape_path(path) for path in paths}
    assert [one[:9] for one in some.changes] == [one[:9] for one in whole.changes if one.path in wanted]
    assert some.unchanged == [path for path in whole.unchanged if path in wanted]


def test_two_processes_find_what_one_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files that are read in pieces, with hard links between the shares, and holes."""
    for name in range(60):
        for tree in ("lower", "upper"):
            (place / tree / f"same{name}").write_text(f"{name}")
        (place / "upper" / f"other{name}").write_text(f"{name}")
        os.link(place / "upper" / f"other{name}", place / "upper" / f"more{59 - name}")
    for tree, last in (("lower", b"x"), ("upper", b"y")):
        for letter in "abc":
            with (place / tree / f"large-{letter}").open("wb") as file:
                file.seek(5 << 20)
                file.write(last if letter == "b" else b"z")
                file.truncate(9 << 20)
            os.utime(place / tree / f"large-{letter}", (1, 1))
    alone = compared(place)
    monkeypatch.setattr(compare, "_ALONE", 10)
    assert compared(place) == alone
    of = {one.path: one for one in alone.changes}
    assert of["large-b"].sha256 == hashlib.sha256((place / "upper/large-b").read_bytes()).hexdigest()
    assert [path for path in alone.unchanged if path.startswith("large")] == ["large-a", "large-c"]


def test_a_hole_of_terabytes_is_no_reason_to_wait(place: Path) -> None:
    """Limits and signals hold while a file is read; the same hole on both sides is not read at all."""
    for tree in ("lower", "upper"):
        with (place / tree / "swap").open("wb") as file:
            file.truncate(120 << 30)
        os.utime(place / tree / "swap", (1, 1))
    start = time.monotonic()
    assert compared(place).unchanged == ["swap"]
    (place / "lower/swap").unlink()

    class TooLong(Exception):
        pass

    def check(_: int, total: int) -> None:
        assert total in (0, 120 << 30)
        if time.monotonic() > start + 0.5:
            raise TooLong

    with pytest.raises(TooLong):
        compare.compare(str(place / "upper"), str(place / "lower"), None, check)
    assert time.monotonic() < start + 3


def children() -> set[str]:
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def test_an_interrupt_ends_both_processes(place: Path) -> None:
    for name in "ab":
        with (place / "upper" / name).open("wb") as file:
            file.truncate(120 << 30)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    others = children()
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            compared(place)
    finally:
        signal.signal(signal.SIGALRM, before)
    # Machines of a lab are children of the tests, too.
    assert children() == others


def test_a_path_that_is_too_long_to_be_named_is_an_error(place: Path) -> None:
    """It would be missing from the list, and from the layer."""
    here = os.open(place / "upper", os.O_RDONLY)
    for _ in range(30):
        os.mkdir("x" * 200, dir_fd=here)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(OSError, match="too long"):
        compared(place)


A_FILE = Entry("f", 0o644, size=3, mtime=5)
A_DIRECTORY = Entry("d", 0o755)
A_LINK = Entry("l", 0o777, link="there")
A_FIFO, A_SOCKET = Entry("p"), Entry("s")
A_DEVICE = Entry("c", device=259)
GONE = Entry("w")
SAME, OTHER = Content("", same=True), Content("ab", same=False)
KINDS = {"f": A_FILE, "d": A_DIRECTORY, "l": A_LINK, "p": A_FIFO, "s": A_SOCKET, "c": A_DEVICE}


@pytest.mark.parametrize("kind", KINDS)
def test_new_deleted_and_hidden(kind: str) -> None:
    """Each kind of what a stack shows, and of what comes."""
    entry = KINDS[kind]
    content = OTHER if kind == "f" else None
    assert compare.operation(entry, None, content) == "A"
    assert compare.operation(GONE, entry, None) == "D"
    assert compare.operation(GONE, None, None) == "unchanged"


@pytest.mark.parametrize(("kind", "was"), [pair for pair in itertools.product(KINDS, KINDS) if pair[0] != pair[1]])
def test_every_other_kind_is_a_change_of_content(kind: str, was: str) -> None:
    assert compare.operation(KINDS[kind], KINDS[was], OTHER if kind == "f" else None) == "C"


@pytest.mark.parametrize(
    ("entry", "was", "content", "op"),
    [
        pytest.param(A_FILE, A_FILE, SAME, "unchanged", id="copied up"),
        pytest.param(A_FILE, A_FILE, OTHER, "C", id="other contents of one size"),
        pytest.param(A_FILE._replace(mode=0o4755), A_FILE, SAME, "M", id="mode"),
        pytest.param(A_FILE._replace(uid=7), A_FILE, SAME, "M", id="owner"),
        pytest.param(A_FILE._replace(gid=7), A_FILE, SAME, "M", id="group"),
        pytest.param(A_FILE._replace(attributes="user.x=0x31"), A_FILE, SAME, "M", id="attributes"),
        pytest.param(A_FILE._replace(mtime=6), A_FILE, SAME, "M times", id="time"),
        pytest.param(A_FILE._replace(mtime=6, mode=0o600), A_FILE, SAME, "M", id="time and mode"),
        pytest.param(A_DIRECTORY, A_DIRECTORY, None, "carrier", id="directory"),
        pytest.param(A_DIRECTORY._replace(mtime=9), A_DIRECTORY, None, "carrier", id="a directory's time"),
        pytest.param(A_DIRECTORY._replace(mode=0o700), A_DIRECTORY, None, "M", id="a directory's mode"),
        pytest.param(A_DIRECTORY._replace(opaque=True), A_DIRECTORY, None, "C", id="opaque"),
        pytest.param(A_LINK, A_LINK, None, "unchanged", id="link"),
        pytest.param(A_LINK._replace(link="elsewhere"), A_LINK, None, "C", id="target of a link"),
        pytest.param(A_LINK._replace(mtime=1), A_LINK, None, "M times", id="time of a link"),
        pytest.param(A_DEVICE._replace(device=260), A_DEVICE, None, "C", id="another device"),
        pytest.param(A_FIFO, A_FIFO, None, "unchanged", id="fifo"),
        pytest.param(A_SOCKET._replace(uid=3), A_SOCKET, None, "M", id="owner of a socket"),
    ],
)
def test_the_table_of_kinds(entry: Entry, was: Entry, content: Content | None, op: str) -> None:
    assert compare.operation(entry, was, content) == op


def test_a_directory_that_hides_the_stack_hides_all_below_it() -> None:
    """What it holds is new, whatever the stack has there."""
    above = {"d": A_DIRECTORY._replace(opaque=True), "d/x": A_DIRECTORY, "d/x/f": A_FILE, "d/gone": GONE}
    below = {"d": A_DIRECTORY, "d/x": A_DIRECTORY, "d/x/f": A_FILE, "d/gone": A_FILE}
    found = compare.compare_lists(above, below, {"d/x/f": Content("ab", same=True)})
    assert [(one.op, one.path) for one in found.changes] == [("C", "d"), ("A", "d/x"), ("A", "d/x/f")]
    assert found.unchanged == ["d/gone"]


def test_hard_links_are_named_by_the_first_of_them_in_the_order_of_bytes() -> None:
    one = A_FILE._replace(links=2, inode=77)
    found = compare.compare_lists({"b": one, "a b": one}, {}, {"b": OTHER, "a b": OTHER})
    assert [(change.path, change.note) for change in found.changes] == [("a\\040b", ""), ("b", "== a\\040b")]
