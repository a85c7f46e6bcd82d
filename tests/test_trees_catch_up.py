from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pyinfra_overlaymig.runner import catch_up, linux, mounts, store, trees
from tests import tree_model
from tests.volume import volume

number = itertools.count()
anywhere = settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with volume() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "current", lambda: 7)
        yield directory


class Roots:
    """Two roots over one stack: the running one, and the next."""

    def __init__(self, disk: Path, stack: list[tuple[Any, ...]]) -> None:
        self.top = disk / str(next(number))
        for name in ("lower", "upper/1/upper", "upper/1/work", "old", "new"):
            (self.top / name).mkdir(parents=True)
        tree_model.in_turn(self.top / "lower", stack)
        vars(catch_up).update(
            UPPER=f"{self.top}/upper", _REMEMBERED=f"{self.top}/drift", _LIVE=f"{self.top}/upper/live"
        )
        self.mounted: list[Path] = []

    def mount(self, n: int, name: str) -> Path:
        place = self.top / name
        upper = f"{self.top}/upper/{n}"
        data = f"{mounts.PLAIN},lowerdir={self.top}/lower,upperdir={upper}/upper,workdir={upper}/work"
        linux.mount("overlay", str(place), "overlay", 0, data)
        self.mounted.append(place)
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for place in self.mounted:
            linux.umount(str(place), linux.MNT_DETACH)


def seen_by_all(place: Path) -> tree_model.Picture:
    """Times of directories are those of the last name that was made in them; a name in another tree is none of its."""
    found = tree_model.picture(place)
    together = Counter(what[6] for what in found.values() if len(what) > 6)
    return {
        path: (*what[:5], 0) if what[0].startswith("d") else what if together[what[-1]] > 1 else what[:6]
        for path, what in found.items()
    }


def apart(seen: tree_model.Picture) -> tree_model.Picture:
    """Without what says which names are one file's."""
    return {path: what[:6] for path, what in seen.items()}


@given(stack=tree_model.many, drift=tree_model.few, meanwhile=tree_model.many)
@example(stack=[("write", "a", "x")], drift=[], meanwhile=[("link", 0, "b")])
@anywhere
def test_nothing_that_happens_while_the_clone_is_made_is_lost(
    disk: Path, stack: list[tuple[Any, ...]], drift: list[tuple[Any, ...]], meanwhile: list[tuple[Any, ...]]
) -> None:
    """Files are the same ones, not copies: what still writes to one is seen in both roots.

    The root before is looked at first: of the numbers by which it tells files apart, it is promised nothing any more.
    """
    with Roots(disk, stack) as roots:
        old = roots.mount(1, "old")
        tree_model.in_turn(old, drift)
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        assert seen == catch_up.listing(1)
        catch_up.remember(seen)
        assert catch_up.remembered() == seen
        new = roots.mount(2, "new")
        tree_model.in_turn(old, meanwhile)
        running = seen_by_all(old)
        catch_up.repeat(1, 2, seen, str(new))
        assert seen_by_all(new) == running
        assert apart(seen_by_all(old)) == apart(running)
        have, wanted = catch_up.listing(2), catch_up.listing(1)
        assert {path: have.get(path) for path, value in wanted.items() if value.isdigit()} == {
            path: value for path, value in wanted.items() if value.isdigit()
        }
        catch_up.repeat(1, 2, catch_up.remembered(), str(new))
        assert seen_by_all(new) == running


@given(stack=tree_model.many, drift=tree_model.few, meanwhile=tree_model.many, steps=st.integers(0, 40))
@example(stack=[], drift=[], meanwhile=[("write", "a", "x")], steps=2)
@example(stack=[("write", "a/b", "x")], drift=[], meanwhile=[("remove", 0)], steps=2)
@anywhere
def test_it_can_be_done_again_after_any_number_of_steps(
    disk: Path, stack: list[tuple[Any, ...]], drift: list[tuple[Any, ...]], meanwhile: list[tuple[Any, ...]], steps: int
) -> None:
    with Roots(disk, stack) as roots:
        old = roots.mount(1, "old")
        tree_model.in_turn(old, drift)
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        catch_up.remember(seen)
        new = roots.mount(2, "new")
        tree_model.in_turn(old, meanwhile)
        running = seen_by_all(old)
        with tree_model.killed(steps):
            catch_up.repeat(1, 2, seen, str(new))
        catch_up.repeat(1, 2, catch_up.remembered(), str(new))
        assert seen_by_all(new) == running


def test_what_was_done_before_a_kill_is_not_told_as_lost(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Roots(disk, []) as roots:
        old = roots.mount(1, "old")
        (old / "gone").mkdir()
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        new = roots.mount(2, "new")
        (old / "gone").rmdir()
        (old / "gone").write_text("a file")
        (new / "gone").rmdir()
        catch_up.repeat(1, 2, seen, str(new))
        assert (new / "gone").read_text() == "a file"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("made", ["deep/new", "deep/below/new"])
def test_a_directory_of_a_layer_with_something_new_in_it_is_newer_than_its_removal(disk: Path, made: str) -> None:
    with Roots(disk, [("write", "deep/below/file", "x"), ("write", "deep/file", "x")]) as roots:
        old = roots.mount(1, "old")
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        new = roots.mount(2, "new")
        tree_model.do(old, ("remove", "deep"))
        (new / made).mkdir()
        (new / "deep/file").unlink()
        catch_up.repeat(1, 2, seen, str(new))
        assert (new / made).is_dir()


def test_what_is_newer_in_the_new_root_stays(disk: Path) -> None:
    """A file that is replaced, or deleted, right after the pivot does not come back."""
    with Roots(disk, [("write", "below", "x")]) as roots:
        old = roots.mount(1, "old")
        for name in ("replaced", "deleted", "below"):
            (old / name).write_text("drift")
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        new = roots.mount(2, "new")
        (old / "late").write_text("late")
        catch_up.repeat(1, 2, seen, str(new))
        for name in ("replaced", "late"):
            (new / f"{name}.new").write_text("newer")
            (new / f"{name}.new").rename(new / name)
        (new / "deleted").unlink()
        (new / "below").unlink()
        catch_up.repeat(1, 2, catch_up.remembered(), str(new))
        assert sorted(os.listdir(new)) == ["late", "replaced"]
        assert (new / "late").read_text() == "newer"


def test_a_program_writes_on_to_a_file_that_it_made_after_the_clone(disk: Path) -> None:
    """`n=$(cat cnt); echo $((n+1)) >cnt.new && mv cnt.new cnt`: a copy of cnt.new would stay empty."""
    with Roots(disk, []) as roots:
        old = roots.mount(1, "old")
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        new = roots.mount(2, "new")
        with (old / "cnt.new").open("w") as file:
            catch_up.repeat(1, 2, seen, str(new))
            file.write("1444")
        assert (new / "cnt.new").read_text() == "1444"


def test_a_link_that_leads_out_of_the_root_is_not_followed(disk: Path) -> None:
    with Roots(disk, []) as roots:
        elsewhere = roots.top / "elsewhere"
        elsewhere.mkdir()
        old = roots.mount(1, "old")
        (old / "d").mkdir()
        catch_up.clone(1, 2)
        seen = catch_up.listing(2)
        new = roots.mount(2, "new")
        (old / "d/file").write_text("x")
        (old / "d/sub").mkdir()
        (new / "d").rmdir()
        (new / "d").symlink_to(elsewhere)
        catch_up.repeat(1, 2, seen, str(new))
        assert os.listdir(elsewhere) == []


def test_the_listing_of_the_runner_before_is_read(disk: Path) -> None:
    """A machine may be upgraded in the middle of a switch that was killed."""
    with Roots(disk, []):
        Path(catch_up._REMEMBERED).write_bytes(b"- ./d\x0012 ./d/a b\x00")
        seen = catch_up.remembered()
    assert seen == {"d": "-", "d/a b": "12"}
    assert not any(catch_up.plan(seen, {"d": DIR, "d/a b": "12"}))


def test_the_first_upper_is_as_the_base_is(disk: Path) -> None:
    with Roots(disk, []) as roots:
        trees.remove_tree(str(roots.top / "upper/1"))
        catch_up.clone(0, 1)
        assert (roots.top / "upper/1/upper").stat().st_mode == Path("/").stat().st_mode
        assert (roots.top / "upper/1/generation").read_text() == "7\n"
        assert catch_up.live() == 0
        catch_up.set_live(1)
        assert catch_up.live() == 1


DIR, HIDES = "d:755:0:0:-", "d:755:0:0:-:o"


@pytest.mark.parametrize(
    ("seen", "now", "gone", "cleared", "made"),
    [
        pytest.param({}, {"x": "1"}, [], [], ["x"], id="new"),
        pytest.param({"x": "1"}, {"x": "1"}, [], [], [], id="the same"),
        pytest.param({"x": "1"}, {}, ["x"], [], [], id="gone"),
        pytest.param({"x": "1"}, {"x": "2"}, [], [], ["x"], id="another file"),
        pytest.param({"x": "1"}, {"x": "w"}, [], [], ["x"], id="deleted"),
        pytest.param({"x": "w"}, {"x": "1"}, [], [], ["x"], id="made again"),
        pytest.param({"x": "1"}, {"x": DIR, "x/y": "2"}, ["x"], [], ["x", "x/y"], id="a directory for a file"),
        pytest.param({"x": DIR, "x/y": "2"}, {"x": "1"}, ["x/y", "x"], [], ["x"], id="a file for a directory"),
        pytest.param({"x": DIR}, {"x": "d:700:0:0:-"}, [], [], ["x"], id="mode of a directory"),
        pytest.param({"x": DIR, "x/y": "2"}, {"x": HIDES, "x/y": "2"}, [], ["x"], ["x", "x/y"], id="made anew"),
        pytest.param({"x": DIR}, {"x": HIDES, "x/y": HIDES}, [], ["x"], ["x", "x/y"], id="made anew with another"),
    ],
)
def test_the_table_of_what_is_repeated(
    seen: dict[str, str], now: dict[str, str], gone: list[str], cleared: list[str], made: list[str]
) -> None:
    assert catch_up.plan(seen, now) == (gone, cleared, made)
