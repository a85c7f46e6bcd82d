from __future__ import annotations

import pytest

from pyinfra_overlaymig.format.refusals import Generations, NoGoal, goal, lacking, out_of_order, relations, stopped

A, B, C = "20240101-001_a", "20240102-001_b", "20240103-001_c"
STACKS = {1: (A,), 2: (A, B), 4: (A, C), 5: ()}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("0", ()), ("000", ()), ("1", (A,)), ("02", (A, B)), ("5", ()), (B, (A, B)), (A, (A,)),
        ("3", "there is no generation 3"), ("4", "generation 4 is not whole any more"), (C, f"no generation has {C}"),
        ("9" * 5000, f"there is no generation {'9' * 5000}"),
        ("\u0661", "no generation has \u0661"), ("", "no generation has ''"),
    ],
)  # fmt: skip
def test_what_a_machine_can_go_to(wanted: str, found: object) -> None:
    """A number or an id, of which the newest generation counts that is whole."""
    said = goal(wanted, Generations(STACKS, STACKS.__getitem__, lambda n: n != 4))
    assert (said.why if isinstance(said, NoGoal) else said) == found
    assert isinstance(said, NoGoal) is isinstance(found, str)
    assert (said.lost if isinstance(said, NoGoal) else 0) == (4 if wanted == "4" else 0)


def test_what_migrations_say_of_each_other() -> None:
    """What it needs, and who conflicts with whom: either of them may say so."""
    why = [one.why for one in relations(C, [A, B], [A], {A: [], "x": [C]})]
    assert why == [
        f"{C} depends on {B}, which is not applied here",
        f"{C} conflicts with {A}, which is applied here",
        f"x, which is applied here, conflicts with {C}",
    ]
    assert list(relations(C, [A], [B], {A: [B]})) == []


def test_services_order_and_programs() -> None:
    """Each is named by what is wrong, and nothing is said of what is well."""
    assert [one.why for one in stopped(A, ["web", "db"], {"db"})] == [f"{A} stops the service web, which is not here"]
    assert [one.why.partition(":")[2].split()[0] for one in out_of_order(A, B)] == [B]
    assert [one.why for one in lacking(["s6-svc", "x"])] == ["this machine lacks: s6-svc, x"]
    assert [*stopped(A, [], ()), *out_of_order(B, A), *out_of_order(A, ""), *lacking([])] == []
