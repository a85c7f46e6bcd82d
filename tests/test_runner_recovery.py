"""What becomes of what an interruption left is decided from the facts on disk alone: every combination of them is
here.
"""

from __future__ import annotations

from itertools import product

import pytest

from pyinfra_overlaymig.runner import fallback, recovery, rollback
from pyinfra_overlaymig.runner.recovery import Facts, Fate

ALL = [Facts(*facts) for facts in product((False, True), repeat=6)]


@pytest.mark.parametrize("facts", ALL, ids=str)
def test_every_stage_has_one_fate(facts: Facts) -> None:
    """Evidence is kept; what is applied stands; only what is past its commit is finished, and only if nobody is
    awaited. What the record of an edition before says is not said of this one.
    """
    if facts.failed:
        expected = Fate.KEEP
    elif facts.applied and not facts.former:
        expected = Fate.TIDY
    elif facts.in_stack and facts.confirm:
        expected = Fate.TAKE_BACK
    elif facts.in_stack:
        expected = Fate.FINISH
    elif facts.record and not facts.former:
        expected = Fate.GO_ON_TAKING_BACK
    else:
        expected = Fate.UNDO
    assert recovery.fate(facts) is expected


def test_no_fate_throws_away_what_is_current() -> None:
    """Whatever else is found: a migration in the current stack is never dropped without being taken off the stack."""
    for facts in ALL:
        if facts.in_stack and not facts.failed:
            assert recovery.fate(facts) in (Fate.TIDY, Fate.TAKE_BACK, Fate.FINISH)


def test_recovering_twice_changes_nothing_more() -> None:
    """Each fate leads to facts whose own fate is to be left alone: power may go in the recovery as well."""
    after = {
        Fate.TAKE_BACK: Facts(failed=True, applied=False, in_stack=False, confirm=True, record=False, former=False),
        Fate.UNDO: Facts(failed=True, applied=False, in_stack=False, confirm=False, record=False, former=False),
        Fate.GO_ON_TAKING_BACK: Facts(
            failed=True, applied=False, in_stack=False, confirm=False, record=False, former=False
        ),
    }
    assert {recovery.fate(facts) for facts in after.values()} == {Fate.KEEP}


ROLLBACKS = [rollback.Facts(*facts) for facts in product((False, True), repeat=4)]


@pytest.mark.parametrize("facts", ROLLBACKS, ids=str)
def test_every_rollback_has_one_fate(facts: rollback.Facts) -> None:
    """Without its journal it never began; it is finished only past its commit, and only if nobody is awaited."""
    if not facts.there:
        expected = rollback.Fate.NOTHING
    elif not facts.journal:
        expected = rollback.Fate.DROP
    elif facts.committed and not facts.confirm:
        expected = rollback.Fate.FINISH
    else:
        expected = rollback.Fate.TAKE_BACK
    assert rollback.fate(facts) is expected


A, B, C = ("a",), ("a", "b"), ("a", "b", "c")


@pytest.mark.parametrize(
    ("current", "stacks", "bad", "usable", "expected"),
    [
        (3, {1: A, 2: B, 3: C}, set(), {1, 2, 3}, 2),
        (3, {1: A, 2: B, 3: C}, set(), {1}, 1),
        (3, {1: A, 2: B, 3: C}, {B}, {1, 2, 3}, 1),
        (3, {1: A, 2: C, 3: C}, set(), {1, 2, 3}, 1),
        (2, {1: A, 2: B, 3: C}, set(), {1, 2, 3}, 1),
        (1, {1: A}, set(), {1}, 0),
        (4, {1: A, 2: B, 3: A, 4: B}, {A}, {1, 2, 3, 4}, 0),
    ],
)
def test_falls_back_to_the_newest_that_was_never_bad(
    current: int,
    stacks: dict[int, tuple[str, ...]],
    bad: set[tuple[str, ...]],
    usable: set[int],
    expected: int,
) -> None:
    """The newest usable one before it; not the same stack under another number, and not one that was bad once."""
    assert fallback.target(current, stacks, bad, usable) == expected
