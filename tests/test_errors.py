from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_overlaymig.errors import (
    InvalidMigration,
    MigrationFailed,
    OverlaymigError,
    Refused,
    from_runner_exit,
)
from pyinfra_overlaymig.format.exits import MEANINGS, meaning


@pytest.mark.parametrize("status", sorted(set(MEANINGS) - {0}))
def test_each_exit_of_the_runner_is_an_error_of_ours(status: int) -> None:
    """A program that ends because of the runner's error exits as the runner did."""
    assert from_runner_exit(status, "what", hint="what to do").exit_code == status


def test_the_two_that_operators_meet_are_told_apart() -> None:
    """Refused and reverted are different things to know about a machine."""
    assert isinstance(from_runner_exit(3, "x", hint="y"), Refused)
    assert isinstance(from_runner_exit(9, "x", hint="y"), MigrationFailed)
    assert "untouched" in meaning(3)
    assert "as before" in meaning(9)


def test_any_other_exit_is_said_to_be_none_of_ours() -> None:
    """A killed runner is not taken for one that decided something."""
    assert "exit 137" in meaning(137)
    assert type(from_runner_exit(137, "x", hint="y")) is OverlaymigError


def test_a_message_starts_with_where() -> None:
    """File and line come first, as compilers write them."""
    assert str(InvalidMigration("bad", hint="h")) == "bad"
    assert str(InvalidMigration("bad", hint="h", file=Path("a"))) == "a: bad"
    assert str(InvalidMigration("bad", hint="h", file=Path("a"), line=3)) == "a:3: bad"
