from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.errors import InvalidOrder
from pyinfra_overlaymig.migration import Migration
from pyinfra_overlaymig.ordering import order, pending, with_dependencies

A, B, C, D = (f"20240101-00{number}_{name}" for number, name in enumerate(("base", "web", "cache", "docs"), 1))
NEAR_A = "20240101-001_bases"


def migration(id: str, *depends: str, conflicts: tuple[str, ...] = ()) -> Migration:
    return Migration(id=id, folder=Path(id), description="x", depends=depends, conflicts=conflicts)


def ids(migrations: tuple[Migration, ...]) -> list[str]:
    return [one.id for one in migrations]


@st.composite
def folders(draw: st.DrawFn) -> list[Migration]:
    """Migrations that depend on some of those before them, in any order."""
    names = [f"20240101-{number:03}_x" for number in range(draw(st.integers(1, 12)))]
    chosen = [
        migration(name, *draw(st.lists(st.sampled_from(names[:at]), unique=True) if at else st.just([])))
        for at, name in enumerate(names)
    ]
    return draw(st.permutations(chosen))


@given(folders())
def test_nothing_comes_before_what_it_depends_on(folder: list[Migration]) -> None:
    """However a folder is listed, the order is the same and keeps every dependency."""
    ordered = order(folder)
    assert ids(ordered) == sorted(one.id for one in folder)
    done: set[str] = set()
    for one in ordered:
        assert done.issuperset(one.depends)
        done.add(one.id)


@given(folders(), st.data())
def test_dependencies_come_along_and_nothing_else(folder: list[Migration], data: st.DataObject) -> None:
    """What is chosen is closed under `depends`, and as small as that allows."""
    wanted = data.draw(st.lists(st.sampled_from([one.id for one in folder]), unique=True))
    chosen = with_dependencies(wanted, folder)
    needed = {id for one in chosen for id in one.depends}
    assert {one.id for one in chosen} == needed | set(wanted)


@given(folders(), st.data())
def test_pending_is_what_is_left(folder: list[Migration], data: st.DataObject) -> None:
    """What is applied is never pending, and all else is, in order."""
    applied = data.draw(st.sets(st.sampled_from([one.id for one in folder])))
    assert ids(pending(folder, applied)) == sorted({one.id for one in folder} - applied)


def test_a_missing_dependency_is_named() -> None:
    """Both sides of a dependency that is not in the folder are named, and what is near it."""
    with pytest.raises(InvalidOrder, match=f"{B} depends on {NEAR_A}, which is not") as caught:
        order([migration(A), migration(B, NEAR_A)])
    assert f"`{A}`" in caught.value.hint


def test_a_cycle_is_named_all_around() -> None:
    """Every migration of a circle is in the message."""
    with pytest.raises(InvalidOrder, match="circle") as caught:
        order([migration(A, C), migration(B, A), migration(C, B), migration(D)])
    assert all(id in str(caught.value) for id in (A, B, C))
    assert D not in str(caught.value)


def test_a_dependency_must_come_before() -> None:
    """A dependency whose id sorts after its dependant can never be applied before it."""
    with pytest.raises(InvalidOrder, match=f"{A} depends on {B}, which comes after it"):
        order([migration(A, B), migration(B)])


def test_conflicts_are_refused_only_where_both_are_wanted() -> None:
    """Migrations that exclude each other may be in one folder, and not on one machine."""
    folder = [migration(A), migration(B, conflicts=(A,)), migration(C, A)]
    assert ids(with_dependencies([B], folder)) == [B]
    with pytest.raises(InvalidOrder, match=f"{B} conflicts with {A}, and both are wanted"):
        with_dependencies([B, C], folder)
    with pytest.raises(InvalidOrder, match="conflicts"):
        pending(folder, {A})


def test_an_unknown_migration_names_the_nearest() -> None:
    """A misspelt id is answered with a "did you mean"."""
    with pytest.raises(InvalidOrder, match="there is no migration") as caught:
        with_dependencies([NEAR_A], [migration(A)])
    assert f"`{A}`" in caught.value.hint


def test_a_suggestion_is_close_in_words_not_by_its_date() -> None:
    """Ids of one day look alike: only labels that are close are suggested, else all are listed."""
    with pytest.raises(InvalidOrder) as caught:
        with_dependencies(["20240101-001_mail_relay"], [migration(A)])
    assert "did you mean" not in caught.value.hint
    assert A in caught.value.hint
