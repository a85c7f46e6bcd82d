from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.runner import (
    directories,
    immovable,
    leftovers,
    linux,
    owners,
    state,
    state_back,
    state_far,
    state_plan,
    trees,
)
from pyinfra_overlaymig.runner.say import Leave
from tests import tree_model
from tests.volume import volume

number = itertools.count()
anywhere = settings(
    max_examples=50,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PATH = "/srv/app data"


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with volume() as directory, pytest.MonkeyPatch.context() as patch:
        forget = types.SimpleNamespace(forget=lambda _: None)
        patch.setitem(sys.modules, "pyinfra_overlaymig.runner.services", forget)
        patch.setattr("pyinfra_overlaymig.runner.services", forget, raising=False)
        yield directory


class World:
    """A machine's state, and a stage's journal over it."""

    def __init__(self, disk: Path) -> None:
        self.top = disk / str(next(number))
        self.state = self.top / "state"
        self.live = Path(f"{self.state}{PATH}")
        self.journal = self.top / "journal"
        self.part = self.journal / "state/1"
        self.live.mkdir(parents=True)
        self.part.mkdir(parents=True)
        (self.journal / "state/paths").write_text(PATH.replace(" ", "\\040") + "\n")
        for module in (state, state_back):
            vars(module)["STATE"] = str(self.state)
        self.accounts: owners.Accounts = {}
        vars(owners).update(STATE=str(self.state), ACCOUNTS=str(self.top / "accounts"), LIVE="/")
        vars(owners)["coming"] = lambda: self.accounts

    @contextmanager
    def far(self) -> Iterator[None]:
        """The state path is a file system of its own."""
        linux.mount("tmpfs", str(self.live), "tmpfs")
        try:
            yield
        finally:
            linux.umount(str(self.live))

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """What a script sees of the state path."""
        for name in ("upper", "work", "seen"):
            (self.part / name).mkdir()
        (self.part / "lower").symlink_to(self.live)
        trees.take_metadata(str(self.live), str(self.part / "upper"), times=True)
        data = f"redirect_dir=off,metacopy=off,index=off,lowerdir={self.live},upperdir={self.part}/upper"
        linux.mount("overlay", str(self.part / "seen"), "overlay", 0, f"{data},workdir={self.part}/work")
        try:
            yield self.part / "seen"
        finally:
            linux.umount(str(self.part / "seen"))

    def run(self, done: list[tuple[Any, ...]]) -> tuple[tree_model.Picture, tree_model.Picture]:
        """Runs a script; the state before, and as the script left it."""
        before = self.picture()
        with self.stage() as seen:
            tree_model.in_turn(seen, done)
            after = tree_model.picture(seen)
        state.plan(str(self.journal))
        (self.journal / "publishing").touch()
        return before, after

    def picture(self) -> tree_model.Picture:
        return tree_model.picture(self.live, overlay=True)


unlinked = tree_model.many.map(lambda done: [one for one in done if one[0] != "link"])
"""Names of one file that a script writes to by one of them are another test's."""


@given(base=unlinked, done=tree_model.many)
@anywhere
def test_state_is_what_the_script_left_and_comes_back_exactly(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]]
) -> None:
    """Modes, owners, ACLs, attributes, times of directories too; nothing of an overlay is left in it."""
    world = World(disk)
    tree_model.in_turn(world.live, base)
    before, after = world.run(done)
    state.publish(str(world.journal))
    assert world.picture() == after
    state.take_back(str(world.journal))
    assert world.picture() == before
    assert not (world.journal / "publishing").exists()


@given(base=unlinked, done=tree_model.many, first=st.integers(0, 60), second=st.integers(0, 60))
@anywhere
def test_an_interruption_anywhere_changes_nothing(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]], first: int, second: int
) -> None:
    """Publishing and taking back can be done again after any number of steps, and taken back after any."""
    world = World(disk)
    tree_model.in_turn(world.live, base)
    before, after = world.run(done)
    for steps in (first, second):
        with tree_model.killed(steps):
            state.publish(str(world.journal))
    state.publish(str(world.journal))
    assert world.picture() == after
    for steps in (first, second):
        with tree_model.killed(steps):
            state.take_back(str(world.journal))
    state.take_back(str(world.journal))
    assert world.picture() == before


@given(base=unlinked, done=tree_model.many, steps=st.integers(0, 60))
@anywhere
def test_what_is_half_published_is_taken_back(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]], steps: int
) -> None:
    world = World(disk)
    tree_model.in_turn(world.live, base)
    before, _ = world.run(done)
    with tree_model.killed(steps):
        state.publish(str(world.journal))
    state.take_back(str(world.journal))
    assert world.picture() == before


@given(base=unlinked, done=tree_model.many, service=tree_model.few)
@anywhere
def test_what_ran_on_new_state_does_not_stop_its_undo(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]], service: list[tuple[Any, ...]]
) -> None:
    """What was replaced comes back wherever a service has moved, removed or made things meanwhile."""
    world = World(disk)
    tree_model.in_turn(world.live, base)
    before, _ = world.run(done)
    state.publish(str(world.journal))
    tree_model.in_turn(world.live, service)
    state.take_back(str(world.journal))
    after = world.picture()
    for name in (world.part / "had").read_text("utf-8", "surrogateescape").splitlines():
        path = octal.unescape_path(name)[2:]
        assert after[path][:5] == before[path][:5]


@given(base=unlinked, done=tree_model.many, cuts=st.tuples(*[st.integers(0, 90)] * 3))
@settings(anywhere, max_examples=25)
def test_state_on_a_file_system_of_its_own(
    disk: Path, base: list[tuple[Any, ...]], done: list[tuple[Any, ...]], cuts: tuple[int, int, int]
) -> None:
    """As of any other, through interruptions; and nothing of the runner's stays there."""
    world = World(disk)
    with world.far():
        tree_model.in_turn(world.live, base)
        before, after = world.run(done)
        first, second, third = cuts
        for steps in (first, second):
            with tree_model.killed(steps):
                state.publish(str(world.journal))
        state.publish(str(world.journal))
        state.sync(str(world.journal))
        if third % 2:
            with tree_model.killed(third):
                state.take_back(str(world.journal))
            state.take_back(str(world.journal))
        state.drop_far(str(world.journal))
        assert world.picture() == (before if third % 2 else after)


def test_what_is_prepared_goes_where_it_comes_to_nothing(disk: Path) -> None:
    """Cut off anywhere."""
    for steps in range(0, 40, 3):
        world = World(disk)
        with world.far():
            (world.live / "d").mkdir()
            with world.stage() as seen:
                (seen / "d/file").write_text("x")
            before = world.picture()
            with tree_model.killed(steps):
                state.plan(str(world.journal))
            state.drop_far(str(world.journal))
            assert world.picture() == before


def test_what_is_somebody_elses_is_not_taken_for_what_was_prepared(disk: Path) -> None:
    world = World(disk)
    with world.far():
        mine = world.live / state_far.NAME / "mine"
        mine.parent.mkdir()
        mine.touch()
        with world.stage() as seen:
            (seen / "file").write_text("x")
        with pytest.raises(Leave, match="is in the way"):
            state.plan(str(world.journal))
        state.drop_far(str(world.journal))
        assert mine.exists()


def test_state_of_an_older_journal_is_taken_back(disk: Path) -> None:
    """A runner before this one wrote no attributes, and escaped no blanks."""
    world = World(disk)
    (world.live / "a b").mkdir()
    (world.live / "a b/file").write_text("old")
    (world.live / "a b").chmod(0o750)
    with world.stage() as seen:
        (seen / "a b/file").write_text("new")
        (seen / "a b").chmod(0o700)
    (world.part / "old").mkdir()
    (world.part / "dirs").write_text(".\n./a b\n")
    (world.part / "had").write_text("./a b/file\n")
    (world.part / "new").write_text("")
    (world.part / "metadata").write_text("755 0:0 .\n750 0:0 ./a b\n")
    (world.journal / "publishing").touch()
    state.publish(str(world.journal))
    assert (world.live / "a b/file").read_text() == "new"
    assert (world.live / "a b").stat().st_mode & 0o777 == 0o700
    state.take_back(str(world.journal))
    assert (world.live / "a b/file").read_text() == "old"
    assert (world.live / "a b").stat().st_mode & 0o777 == 0o750


def test_a_path_that_is_new_is_moved_and_moved_back(disk: Path) -> None:
    """With its directories above; no inode of the stage is state's too."""
    world = World(disk)
    world.live.rmdir()
    world.live.parent.rmdir()
    (world.part / "tree").mkdir()
    (world.part / "tree/file").write_text("x")
    inode = (world.part / "tree/file").stat().st_ino
    (world.journal / "publishing").touch()
    for _ in range(2):
        state.publish(str(world.journal))
    assert (world.live / "file").stat().st_ino == inode
    assert (world.live / "file").stat().st_nlink == 1
    state.take_back(str(world.journal))
    assert not (world.state / "srv").exists()
    assert (world.part / "tree/file").exists()


def test_a_snapshot_knows_whose_its_numbers_are(disk: Path) -> None:
    """Two accounts that swapped numbers since: files follow when it returns, and again when that is taken back."""
    world = World(disk)
    then, now = {("u", "alpha"): 811, ("u", "beta"): 812}, {("u", "alpha"): 812, ("u", "beta"): 811}
    (world.live / "now").write_text("x")
    os.chown(world.live / "now", 812, 0)
    snapshot = world.top / "1"
    snapshot.mkdir()
    (snapshot / "then").write_text("x")
    os.chown(snapshot / "then", 811, 0)
    (world.top / "accounts.1").write_text(owners.text(then))
    owners.remember(PATH, now)
    (world.part / "snapshot").symlink_to(snapshot)
    (world.journal / "publishing").touch()
    state.publish(str(world.journal))
    owners.follow(PATH, now)
    assert (world.live / "then").stat().st_uid == 812
    state.take_back(str(world.journal))
    owners.follow(PATH, now)
    assert (world.live / "now").stat().st_uid == 812
    assert owners.read(str(world.top / "accounts.1"))["u", "alpha"] == (snapshot / "then").stat().st_uid == 812


@pytest.mark.parametrize("existed", [True, False])
def test_a_snapshot_takes_the_place_of_the_whole_path(disk: Path, existed: bool) -> None:
    world = World(disk)
    (world.live / "now").write_text("x")
    snapshot = world.top / "snapshot"
    if existed:
        snapshot.mkdir()
        (snapshot / "then").write_text("x")
        (world.part / "snapshot").symlink_to(snapshot)
    else:
        (world.part / "gone").touch()
    (world.journal / "publishing").touch()
    for _ in range(2):
        state.publish(str(world.journal))
    assert (world.live / "then").exists() == existed
    assert not (world.live / "now").exists()
    # The switch begins a path anew that is gone.
    world.live.mkdir(exist_ok=True)
    (world.live / "begun").touch()
    for _ in range(2):
        (world.journal / "publishing").touch()
        state.take_back(str(world.journal))
    assert os.listdir(world.live) == ["now"]
    assert (snapshot / "then").exists() == existed


SWAPPED = {"alpha": (811, 812), "beta": (812, 811)}
GIVEN = {"alpha-given": 901, "beta-given": 901}


def mixed(world: World) -> dict[str, int]:
    """State of two accounts, which a stage works on whose stack has them swapped; what the stage left, by owner."""
    owners.remember(PATH, {("u", name): numbers[0] for name, numbers in SWAPPED.items()})
    for name, numbers in SWAPPED.items():
        for file in ("kept", "written", "given"):
            (world.live / f"{name}-{file}").write_text("old")
            os.chown(world.live / f"{name}-{file}", numbers[0], 0)
        (world.live / f"{name}-dir").mkdir()
        os.chown(world.live / f"{name}-dir", numbers[0], 0)
        for file in ("kept", "written", "dir"):
            tree_model.share(world.live / f"{name}-{file}", numbers[0])
    with world.stage() as seen:
        for name, numbers in SWAPPED.items():
            (seen / f"{name}-written").write_text("new")
            (seen / f"{name}-dir/in").touch()
            (seen / f"{name}-new").touch()
            for file in ("new", "dir/in"):
                os.chown(seen / f"{name}-{file}", numbers[1], 0)
            os.chown(seen / f"{name}-given", 900, 0)
            tree_model.share(seen / f"{name}-given", 901)
    world.accounts = {("u", name): numbers[1] for name, numbers in SWAPPED.items()}
    state.plan(str(world.journal))
    (world.journal / "publishing").touch()
    kept = ("kept", "written", "dir", "dir/in", "new")
    wanted = {f"{name}-{file}": numbers[1] for name, numbers in SWAPPED.items() for file in kept}
    return {**wanted, "alpha-given": 900, "beta-given": 900}


@pytest.mark.parametrize("steps", [*range(0, 80, 3), 1000])
def test_names_keep_their_files_when_the_new_stack_swaps_their_numbers(disk: Path, steps: int) -> None:
    """What was there, what the script changed, and what it made; and all of it when it is taken back. ACLs too, of
    what has inherited them as well.
    """
    world = World(disk)
    wanted = mixed(world)
    before = world.picture()
    with tree_model.killed(steps):
        state.publish(str(world.journal))
    state.publish(str(world.journal))
    assert {name: os.lstat(world.live / name).st_uid for name in wanted} == wanted
    shared = {name: who for name, who in wanted.items() if not name.endswith("new")}
    assert {name: tree_model.shared_with(world.live / name) for name in shared} == shared | GIVEN
    with tree_model.killed(steps):
        state.take_back(str(world.journal))
    state.take_back(str(world.journal))
    owners.follow(PATH, {("u", name): numbers[0] for name, numbers in SWAPPED.items()})
    assert world.picture() == before


@pytest.mark.parametrize("steps", range(0, 80, 3))
def test_half_swapped_numbers_are_taken_back(disk: Path, steps: int) -> None:
    world = World(disk)
    mixed(world)
    before = world.picture()
    with tree_model.killed(steps):
        state.publish(str(world.journal))
    state.take_back(str(world.journal))
    owners.follow(PATH, {("u", name): numbers[0] for name, numbers in SWAPPED.items()})
    assert world.picture() == before


def linked(disk: Path) -> World:
    """State with two names of one file."""
    world = World(disk)
    (world.live / "d").mkdir()
    (world.live / "one").write_text("old")
    os.link(world.live / "one", world.live / "d/two")
    return world


def test_names_of_one_file_stay_so(disk: Path) -> None:
    """Whether a script does nothing to them, opens one, or changes the owner of all."""
    world = linked(disk)
    with world.stage() as seen:
        (seen / "one").open("ab").close()
        subprocess.run(["chown", "-R", "7", seen / "d"], check=True)
        os.chown(seen / "one", 7, -1)
    state.plan(str(world.journal))
    (world.journal / "publishing").touch()
    state.publish(str(world.journal))
    assert (world.live / "one").stat().st_uid == 7
    assert (world.live / "one").samefile(world.live / "d/two")
    state.take_back(str(world.journal))
    assert (world.live / "one").stat().st_uid == 0
    assert (world.live / "one").samefile(world.live / "d/two")


def test_one_that_is_only_opened_is_left_alone(disk: Path) -> None:
    world = linked(disk)
    with world.stage() as seen:
        (seen / "one").open("ab").close()
    state.plan(str(world.journal))
    state.publish(str(world.journal))
    assert (world.live / "one").samefile(world.live / "d/two")


def test_names_that_a_script_links_again_are_as_it_left_them(disk: Path) -> None:
    world = linked(disk)
    with world.stage() as seen:
        (seen / "one").write_text("new")
        subprocess.run(["ln", "-f", seen / "one", seen / "d/two"], check=True)
    state.plan(str(world.journal))
    state.publish(str(world.journal))
    assert (world.live / "d/two").read_text() == "new"
    assert (world.live / "one").samefile(world.live / "d/two")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("mv one three", "d/two three"),
        ("mv d e", "e/two one"),
        ("mv d/two d/three; mv d e", "e/three one"),
        ("rm -r d; mkdir d; mv one d/one; touch -r d x; rm x", "d/one"),
        ("mkdir -p n/m; mv one n/m/one", "d/two n/m/one"),
    ],
)
def test_names_that_are_moved_are_names_of_one_file_still(disk: Path, command: str, names: str) -> None:
    """An overlay copies what is moved, and with it goes what it had in common with the others."""
    world = linked(disk)
    before = world.picture()
    with world.stage() as seen:
        subprocess.run(["sh", "-euc", command], cwd=seen, check=True)
        after = tree_model.picture(seen)
    state.plan(str(world.journal))
    (world.journal / "publishing").touch()
    state.publish(str(world.journal))
    found = [one for one in world.live.rglob("*") if one.is_file()]
    assert sorted(str(one.relative_to(world.live)) for one in found) == names.split(" ")
    assert len({one.stat().st_ino for one in found}) == 1
    assert {path: one[:6] for path, one in world.picture().items()} == {path: one[:6] for path, one in after.items()}
    state.take_back(str(world.journal))
    assert world.picture() == before


@pytest.mark.parametrize("other", ["removed", "its directory removed", "its directory replaced"])
def test_a_name_that_is_gone_is_in_nobodys_way(disk: Path, other: str) -> None:
    world = linked(disk)
    with world.stage() as seen:
        (seen / "one").write_text("new")
        (seen / "d/two").unlink()
        if other != "removed":
            (seen / "d").rmdir()
        if other == "its directory replaced":
            (seen / "d").mkdir()
    state.plan(str(world.journal))
    state.publish(str(world.journal))
    assert (world.live / "one").read_text() == "new"
    assert not (world.live / "d/two").exists()


def test_a_name_that_would_keep_the_old_contents_is_refused(disk: Path) -> None:
    """An overlay copies up only the one that was written to."""
    world = linked(disk)
    with world.stage() as seen:
        (seen / "one").write_text("new")
    with pytest.raises(Leave, match="one and d/two are names of one file"):
        state.plan(str(world.journal))
    assert (world.live / "one").read_text() == "old"


def test_state_on_another_file_system_is_refused_before_the_commit(disk: Path) -> None:
    world = World(disk)
    (world.live / "mounted").mkdir()
    linux.mount("tmpfs", str(world.live / "mounted"), "tmpfs")
    try:
        with world.stage() as seen:
            (seen / "mounted").chmod(0o700)
            (seen / "mounted/file").write_text("x")
        with pytest.raises(Leave, match="another file system"):
            state.plan(str(world.journal))
    finally:
        linux.umount(str(world.live / "mounted"))


def test_only_what_differs_is_changed(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that refuses chown, as those of NFS do, is in nobody's way."""
    world = World(disk)
    (world.live / "d").mkdir()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "not permitted")

    with world.stage() as seen:
        (seen / "d/file").write_text("x")
    state.plan(str(world.journal))
    (world.journal / "publishing").touch()
    for call in ("chown", "chmod", "setxattr", "removexattr"):
        monkeypatch.setattr(os, call, refused)
    state.publish(str(world.journal))
    state.take_back(str(world.journal))
    assert os.listdir(world.live / "d") == []


def test_a_link_that_somebody_puts_into_the_way_leads_nowhere(disk: Path) -> None:
    """Who may write to a state path could have the runner write elsewhere."""
    world = World(disk)
    (world.live / "d").mkdir()
    elsewhere = world.top / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    with world.stage() as seen:
        (seen / "d/file").write_text("x")
        (seen / "d").chmod(0o777)
    state.plan(str(world.journal))
    (world.journal / "publishing").touch()
    (world.live / "d").rmdir()
    (world.live / "d").symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"[Nn]ot a directory|Too many"):
        state.publish(str(world.journal))
    assert os.listdir(elsewhere) == []
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    state.take_back(str(world.journal))
    assert os.listdir(elsewhere) == []
    assert not (world.live / "d").is_symlink()


def test_what_cannot_be_dropped_is_told_and_in_nobodys_way(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of what a change before had replaced: what is immutable goes, a mount is put aside until gc finds it gone."""
    world = World(disk)
    replaced, leftover = world.top / "replaced", world.top / "leftovers"
    monkeypatch.setattr(state, "REPLACED", str(replaced))
    monkeypatch.setattr(leftovers, "_PLACE", str(leftover))
    state.keep(str(world.journal), "rollback")
    (replaced / "rollback/d").mkdir()
    for name in ("held", "d/held", "d/other"):
        (replaced / "rollback" / name).write_text("x")
    live = world.top / "live"
    os.link(replaced / "rollback/held", live)
    subprocess.run(["chattr", "+i", *(replaced / "rollback" / name for name in ("held", "d/held", "d"))], check=True)
    subprocess.run(["chattr", "+a", replaced / "rollback"], check=True)
    again = World(disk)
    state.keep(str(again.journal), "one")
    assert "stays" not in capfd.readouterr().err
    assert os.listdir(replaced) == ["one"]
    assert immovable.why_at(str(live)) == "immutable (chattr +i)"
    subprocess.run(["chattr", "-i", live], check=True)
    (replaced / "one/mounted").mkdir()
    linux.mount("tmpfs", str(replaced / "one/mounted"), "tmpfs")
    try:
        last = World(disk)
        state.keep(str(last.journal), "one")
        assert "one/mounted stays: Device or resource busy; gc tries again" in capfd.readouterr().err
        assert os.listdir(replaced) == ["one"]
        leftovers.sweep()
        assert os.listdir(leftover) == ["replaced.1"]
    finally:
        linux.umount(str(leftover / "replaced.1/one/mounted"))
    leftovers.sweep()
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("chattr +i d", "new"), ("chattr +a d", "new"), ("chattr +i d", "change"), ("chattr +a d", "remove"),
        ("chattr +i d", "mode"), ("chattr +i .", "top"), ("chattr +i d/held", "replace"), ("mount", "new"),
    ],
)  # fmt: skip
def test_what_somebody_made_immovable_is_refused_by_name_before_the_commit(disk: Path, how: str, change: str) -> None:
    """And is in nobody's way where a script leaves it alone, nor when what was published is taken back."""
    world = World(disk)
    (world.live / "d").mkdir()
    for name in ("d/held", "d/file", "file"):
        (world.live / name).write_text("x")
    mounted = world.live / "d"
    flags = how.split()[1:]
    with world.stage() as seen:
        match change:
            case "new":
                (seen / "d/new").write_text("x")
            case "change":
                (seen / "d/file").write_text("y")
            case "remove":
                (seen / "d/file").unlink()
            case "mode":
                (seen / "d").chmod(0o700)
            case "top":
                (seen / "new").write_text("x")
            case "replace":
                (seen / "d/held").unlink()
                (seen / "d/held").write_text("y")
    if how == "mount":
        linux.mount(str(mounted), str(mounted), None, linux.MS_BIND)
        linux.mount(None, str(mounted), None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)
    else:
        subprocess.run(["chattr", flags[0], world.live / flags[1]], check=True)
    try:
        with pytest.raises(Leave, match=r"immutable|append-only|read-only"):
            state.plan(str(world.journal))
    finally:
        if how == "mount":
            linux.umount(str(mounted))
        else:
            subprocess.run(["chattr", f"-{flags[0][1]}", world.live / flags[1]], check=True)
    assert (world.live / "d/file").read_text() == "x"


@pytest.mark.parametrize("place", ["file", "d", "d/e"])
def test_what_something_is_mounted_over_is_refused_by_name_before_the_commit(disk: Path, place: str) -> None:
    """It cannot be replaced, nor moved away with what is mounted in it; beside it, and within it, the rest can."""
    world = World(disk)
    (world.live / "d/e").mkdir(parents=True)
    (world.live / "file").write_text("x")
    mounted, top = world.live / place, place.partition("/")[0]
    with world.stage() as seen:
        shutil.rmtree(seen / "d")
        (seen / "file").write_text("y")
    linux.mount(str(mounted), str(mounted), None, linux.MS_BIND)
    try:
        with pytest.raises(Leave, match=f"would replace or remove .*/{top}, and something is mounted there"):
            state.plan(str(world.journal))
    finally:
        linux.umount(str(mounted))
    state.plan(str(world.journal))


def test_immovable_state_is_in_nobodys_way(disk: Path) -> None:
    """Neither where a script leaves it alone, nor where something made it so after it was published."""
    world = World(disk)
    (world.live / "d").mkdir()
    (world.live / "e").mkdir()
    for name in ("d/held", "e/changed", "file"):
        (world.live / name).write_text("x")
    before = world.picture()
    subprocess.run(["chattr", "+i", world.live / "d/held", world.live / "d"], check=True)
    try:
        with world.stage() as seen:
            (seen / "e/changed").write_text("y")
            (seen / "e/new").mkdir()
            (seen / "file").unlink()
        state.plan(str(world.journal))
        (world.journal / "publishing").touch()
        state.publish(str(world.journal))
        (world.live / "e/new/more").write_text("x")
        made = [world.live / name for name in ("e/new/more", "e/new", "e/changed", "e", ".")]
        subprocess.run(["chattr", "+i", *made], check=True)
        state.take_back(str(world.journal))
        assert [immovable.why_at(str(world.live / name)) for name in ("e", ".", "e/changed")] == [
            "immutable (chattr +i)", "immutable (chattr +i)", "",
        ]  # fmt: skip
    finally:
        subprocess.run(["chattr", "-R", "-i", world.live], check=True)
    assert world.picture() == before


def test_a_thousand_changed_files_are_published_in_no_time(disk: Path) -> None:
    world = World(disk)
    for one in range(1000):
        (world.live / f"{one}").write_text("old")
    with world.stage() as seen:
        for one in range(1000):
            (seen / f"{one}").write_text("new")
    state.plan(str(world.journal))
    start = time.process_time()
    state.publish(str(world.journal))
    took = time.process_time() - start
    # 0.03 s on an idle machine.
    assert took < 0.3
    assert {(world.live / f"{one}").read_text() for one in range(1000)} == {"new"}


D, HIDES, W, F = state_plan.DIRECTORY, state_plan.OPAQUE, state_plan.WHITEOUT, state_plan.OTHER


@pytest.mark.parametrize(
    ("upper", "live", "decision"),
    [
        pytest.param({"x": F}, {}, ([""], ["x"], []), id="new"),
        pytest.param({"x": F}, {"x": F}, ([""], [], ["x"]), id="replaced"),
        pytest.param({"x": F}, {"x": D}, ([""], [], ["x"]), id="a file where a directory was"),
        pytest.param({"x": D, "x/y": F}, {"x": F}, ([""], [], ["x"]), id="a directory where a file was"),
        pytest.param({"x": D, "x/y": F}, {}, ([""], ["x"], []), id="a new directory goes whole"),
        pytest.param({"x": D, "x/y": F}, {"x": D}, (["", "x"], ["x/y"], []), id="a directory on both sides"),
        pytest.param({"x": D}, {"x": D}, (["", "x"], [], []), id="metadata of a directory"),
        pytest.param({"x": HIDES, "x/y": F}, {"x": D, "x/y": F}, ([""], [], ["x"]), id="one that hides the other"),
        pytest.param({"x": HIDES}, {}, ([""], ["x"], []), id="one that hides nothing"),
        pytest.param({"x": W}, {"x": F}, ([""], [], ["x"]), id="deleted"),
        pytest.param({"x": W}, {"x": D}, ([""], [], ["x"]), id="a deleted directory"),
        pytest.param({"x": W}, {}, ([""], [], []), id="deleted, and never there"),
        pytest.param({"a-b": F, "a": D, "a/c": F}, {"a": D}, (["", "a"], ["a-b", "a/c"], []), id="order of bytes"),
    ],
)
def test_the_table_of_what_is_done(
    upper: dict[str, str], live: dict[str, str], decision: tuple[list[str], list[str], list[str]]
) -> None:
    assert state_plan.decide(upper, live) == decision


def test_directories_are_opened_below_their_top(disk: Path) -> None:
    top = disk / str(next(number))
    (top / "a/b").mkdir(parents=True)
    (top / "file").touch()
    (top / "link").symlink_to(disk)
    with directories.below(str(top)) as held:
        assert os.listdir(held.open("a")) == ["b"]
        for wrong in ("link", "file", "missing", "link/a"):
            with pytest.raises(OSError, match=wrong):
                held.open(wrong)
        for made in ("link/x", "file/y", "a/b/c"):
            assert os.listdir(held.open(made, make=True)) == []
    assert (top / "link").is_dir()
    assert not (top / "link").is_symlink()
