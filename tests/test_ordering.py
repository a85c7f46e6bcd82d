from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.errors import InvalidOrder
from pyinfra_overlaymig.migration.folder import load_all
from pyinfra_overlaymig.migration.model import Migration, Service
from pyinfra_overlaymig.migration.ordering import order, start_order, with_dependencies

A, B, C, D = (f"20240101-00{number}_{name}" for number, name in enumerate(("base", "web", "cache", "docs"), 1))
NEAR_A = "20240101-001_bases"
LATER = "20240101-009_later"


def migration(id: str, *depends: str, conflicts: tuple[str, ...] = (), **services: str) -> Migration:
    """One with services, each of which needs those named in a text."""
    brought = tuple(Service(name, run="x", needs=tuple(needs.split())) for name, needs in services.items())
    return Migration(
        id=id, folder=Path(id), description="x", depends=depends, conflicts=conflicts, services=brought
    )  # fmt: skip


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


def test_a_conflict_that_cannot_be_avoided_is_refused() -> None:
    """A migration that depends on two that exclude each other, or on one that it excludes, fits no machine."""
    with pytest.raises(InvalidOrder, match=f"{B} conflicts with {A}, and {C} brings both"):
        order([migration(A), migration(B, conflicts=(A,)), migration(C, A, B)])
    with pytest.raises(InvalidOrder, match=f"{C} conflicts with {A}, and {C} brings both"):
        order([migration(A), migration(B, A), migration(C, B, conflicts=(A,))])


def test_a_conflict_counts_whichever_of_the_two_names_it() -> None:
    """What is older may exclude what comes later, too."""
    with pytest.raises(InvalidOrder, match=f"{A} conflicts with {B}"):
        with_dependencies([A, B], [migration(A, conflicts=(B,)), migration(B)])


def test_a_need_is_brought_by_the_migration_or_what_it_depends_on() -> None:
    """A service may need one of its own migration, or of any below it, however far."""
    folder = [migration(A, db=""), migration(B, A), migration(C, B, cache="", worker="db cache")]
    assert ids(with_dependencies([C], folder)) == [A, B, C]


def test_a_need_that_nothing_brings_is_refused() -> None:
    """It may not be there on a machine: the migration that has it is named, or what is close to it."""
    folder = [migration(A, db=""), migration(B, web="db")]
    with pytest.raises(InvalidOrder, match=f"service web needs db, which neither {B} nor what") as caught:
        order(folder)
    assert f"add {A}, which has it, to `depends`" in caught.value.hint
    with pytest.raises(InvalidOrder, match="service web needs postgresq") as caught:
        order([migration(A, postgresql=""), migration(B, A, web="postgresq")])
    assert "did you mean `postgresql`?" in caught.value.hint


def test_services_that_need_each_other_are_named() -> None:
    """A circle is refused with all its services, within one migration and across the definitions of several."""
    with pytest.raises(InvalidOrder, match=r"services need each other in a circle: (.*)") as caught:
        order([migration(A, a="b", b="c", c="a", d="a")])
    assert set(str(caught.value).rpartition(": ")[2].split(" -> ")) == {"a", "b", "c"}
    with pytest.raises(InvalidOrder, match=r"in a circle: (a -> b -> a|b -> a -> b)"):
        order([migration(A, a="b", b=""), migration(B, A, b="a")])


def test_what_a_later_migration_defines_again_counts() -> None:
    """A circle that a later definition breaks is none; services start after all that they need, as defined last."""
    folder = [migration(A, a="b", b="", c=""), migration(B, A, a="", b="a c", e="b")]
    assert start_order(order(folder)) == (("a", "c"), ("b",), ("e",))
    assert start_order(folder[:1]) == (("b", "c"), ("a",))
    assert start_order([]) == ()


@given(folders(), st.data())
def test_services_start_after_their_needs(folder: list[Migration], data: st.DataObject) -> None:
    """Whatever the graph, each service is in one step, and its needs are in earlier ones."""
    with_services = []
    for one in sorted(folder, key=lambda one: one.id):
        name = "s" + one.id[9:12]
        needs = data.draw(st.lists(st.sampled_from(sorted(one.depends)), unique=True) if one.depends else st.just([]))
        service = Service(name, run="x", needs=tuple("s" + id[9:12] for id in needs))
        with_services.append(replace(one, services=(service,)))
    started: set[str] = set()
    for step in start_order(order(with_services)):
        for one in with_services:
            (service,) = one.services
            if service.name in step:
                assert started.issuperset(service.needs)
        started.update(step)
    assert len(started) == len(folder)


@pytest.mark.parametrize(
    ("manifest", "line", "said"),
    [
        (f"description: x\ndepends:\n  - {A}\n  - {NEAR_A}\n", 4, "is not in the folder"),
        (f"description: x\ndepends:\n  - {LATER}\n", 3, "which comes after it"),
        ("description: x\nservices:\n  web:\n    run: x\n    needs:\n      - db\n", 6, "service web needs db"),
        ("description: x\nservices:\n  a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}\n", None, "in a circle"),
        (f"description: x\nconflicts:\n  - {A}\ndepends: [{C}]\n", 3, f"{D} brings both"),
    ],
)
def test_the_line_is_named(tmp_path: Path, manifest: str, line: int | None, said: str) -> None:
    """What is wrong only beside other migrations is refused at the very line that says it, too."""
    others = {A: "description: x\n", C: f"description: x\ndepends: [{A}]\n", LATER: "description: x\n"}
    for id, text in {**others, D: manifest}.items():
        (tmp_path / id).mkdir()
        (tmp_path / id / "migration.yaml").write_text(text)
        (tmp_path / id / "install.sh").write_text("#!/bin/sh\n:\n")
    with pytest.raises(InvalidOrder, match=said) as caught:
        order(load_all(tmp_path))
    assert caught.value.line in ({line} if line else {3, 4})
    assert str(caught.value).startswith(f"{tmp_path}/{D}/migration.yaml:{caught.value.line}: ")
