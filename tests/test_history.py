from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.format import FormatError
from pyinfra_overlaymig.format.history import (
    Past,
    read_generations,
    read_migrations,
    tell_generations,
    tell_migrations,
    tell_shortly,
)

ids = st.integers(0, 9).map(lambda number: f"20240101-00{number}_x")


@st.composite
def pasts(draw: st.DrawFn) -> list[Past]:
    """A machine's generations: each over the one before, back at an earlier one, or changed in the middle."""
    found = [Past(0, ())]
    for step in draw(st.lists(st.integers(1, 3), max_size=25)):
        last = draw(st.sampled_from([found[-1], found[-1], *found]))
        stack = draw(
            st.just((*last.stack, draw(ids)))
            | st.just(last.stack)
            | st.just(last.stack[: draw(st.integers(0, 9))])
            | st.lists(ids, max_size=6).map(tuple)
            | st.just((*last.stack[:2], draw(ids), *last.stack[4:]))
        )
        instead = draw(st.none() | st.none() | st.integers(0, 5))
        found.append(Past(found[-1].n + step, stack, instead, draw(st.sampled_from(["", "a", "a", "a"]))))
    return found[1:]


@given(pasts())
def test_what_is_told_shortly_is_read_as_it_was(past: list[Past]) -> None:
    """By way of JSON, whatever the stacks did, each generation comes back exactly."""
    assert read_generations(json.loads(json.dumps(tell_shortly(past)))) == past
    assert read_generations(json.loads(json.dumps(tell_generations(past)))) == past


def test_few_are_told_in_full_and_many_shortly() -> None:
    """Who reads the status of a small machine finds each stack; that of a large one does not grow by squares."""
    few = [Past(n, tuple(f"20240101-{k:03d}_x" for k in range(n)), None, "a16d") for n in range(1, 11)]
    assert tell_generations(few)[1] == {
        "n": 2,
        "stack": ["20240101-000_x", "20240101-001_x"],
        "instead_of": None,
        "base": "a16d",
    }
    many = [Past(n, tuple(f"20240101-{k:03d}_x" for k in range(n)), None, "a16d") for n in range(1, 401)]
    told = tell_generations([*many, Past(401, many[2].stack, 400, "b")])
    assert len(told) == 2
    assert told[0].keys() == {"n", "to", "add", "base"}
    assert told[1] == {"n": 401, "parent": 3, "instead_of": 400, "base": "b"}


def test_a_change_in_the_middle_is_told_as_one() -> None:
    """A stack whose lower layers become one says so in a line."""
    stack = tuple(f"20240101-{k:03d}_x" for k in range(400))
    told = tell_shortly([Past(1, stack), Past(2, (*stack[:100], "20240102-001_y", *stack[300:]))])
    assert told[1] == {"n": 2, "add": ["20240102-001_y"], "drop": 200, "below": 100}


@pytest.mark.parametrize(
    "told",
    [
        {"n": 2, "parent": 7},
        {"n": 2, "drop": 1},
        {"n": 2, "drop": -1, "below": 0},
        {"n": 2, "drop": 0, "below": 1},
        {"n": 2, "add": "20240101-001_x"},
        {"n": 2, "add": [1]},
        {"n": 2, "to": 4, "add": ["20240101-001_x"]},
    ],
)
def test_a_history_that_cannot_be_is_refused(told: dict[str, Any]) -> None:
    """What names no generation, or drops what is not there, is not guessed at."""
    with pytest.raises(FormatError):
        read_generations([{"n": 1}, told])


rows = st.lists(st.fixed_dictionaries({"id": st.text(), "files": st.integers(), "state": st.lists(st.text())}))


@given(rows, st.integers(0, 80))
def test_a_table_is_read_as_it_was(some: list[dict[str, Any]], times: int) -> None:
    """Few migrations are a list, many are a table; both are the same migrations."""
    migrations = [*some, *({"id": "x", "files": 1, "state": []} for _ in range(times))]
    told = tell_migrations(migrations)
    assert isinstance(told, list) == (len(migrations) <= 50)
    assert read_migrations(json.loads(json.dumps(told))) == migrations


@pytest.mark.parametrize(
    "told", [None, "x", {}, {"same": {}, "columns": ["id"]}, {"same": {}, "columns": ["id"], "rows": [[1, 2]]}]
)
def test_a_table_that_is_none_is_refused(told: object) -> None:
    """Each row has a value for each column."""
    with pytest.raises(FormatError):
        read_migrations(told)
