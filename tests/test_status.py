from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.format import FORMAT
from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.status import (
    UNKNOWN,
    Evidence,
    Generation,
    LockOwner,
    MigrationRecord,
    Runner,
    ServiceStatus,
    Stale,
    Status,
)
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.lab.layout import Lab, place
from pyinfra_overlaymig.lab.machine import Machine
from pyinfra_overlaymig.lab.status import Answer, rows

TEXT = (Path(__file__).parent / "fixtures/status.json").read_text("utf-8")
STATUS = parse(TEXT)
OPTIONAL = {
    "runner",
    "lock",
    "pid",
    "since",
    "instead_of",
    "failed_boots",
    "audit",
    "lost",
    "unexplained",
    "stale",
    "unfit",
    "broken",
    "defined",
    "conflicts",
}

words = st.lists(st.text(), max_size=3).map(tuple)
path = st.binary().map(lambda name: name.decode("utf-8", "surrogateescape"))
paths = st.lists(path, max_size=3).map(tuple)


def some(record: Any, **changes: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.builds(record, **changes), max_size=2).map(tuple)


statuses = st.builds(
    Status,
    known=st.just(True),
    runner=st.builds(Runner),
    stack=words,
    generations=some(Generation, stack=words),
    migrations=some(MigrationRecord, state=paths, services=words, conflicts=words),
    evidence=some(Evidence),
    services=some(ServiceStatus),
    stale=some(Stale, path=path),
    lock=st.none() | st.builds(LockOwner),
    missing=words,
    broken=st.lists(st.integers(), max_size=3).map(tuple),
    defined=words,
)


def document() -> Any:
    return json.loads(TEXT)


def refusal(value: object) -> FormatError:
    with pytest.raises(FormatError) as caught:
        parse(value if isinstance(value, str) else json.dumps(value))
    assert caught.value.hint
    return caught.value


def places(value: Any, where: str = "status") -> Iterator[tuple[str, list[Any]]]:
    """Each place in a document: its name in messages, and the keys that lead there."""
    if isinstance(value, dict):
        pairs = [(f"{where}.{key}", key) for key in value]
    elif isinstance(value, list):
        pairs = [(f"{where}[]", index) for index in range(len(value))]
    else:
        pairs = []
    for name, key in pairs:
        yield name, [key]
        yield from ((deeper, [key, *rest]) for deeper, rest in places(value[key], name))


def replaced(path: list[Any], wrong: Any) -> Any:
    changed = copy.deepcopy(document())
    spot = changed
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = wrong
    return changed


PLACES = list(places(document()))


def test_a_whole_status_is_read() -> None:
    """Every key of the runner's document arrives where it belongs."""
    status = parse(TEXT)
    assert status.known
    assert status.prepared
    assert status.runner == Runner("0.1.0", "5f0c1e")
    assert (status.host, status.kernel, status.booted, status.base) == ("lab-1", "6.18.0", True, "a16d")
    assert (status.generation, status.running) == (2, 2)
    assert status.generations[0] == Generation(1, ("20240101-001_a",), base="a16d")
    assert status.migration("20240206-001_add_postgresql") == MigrationRecord(
        "20240206-001_add_postgresql", "bb", "applied", "2026-11-23T14:00:00Z", 2,
        active=True, state=("/var/lib/post gres\udcff",), services=("postgresql",), size=123456, files=42,
        audit="on", lost=0, unexplained=1, local=True, conflicts=("20240101-009_other",),
    )  # fmt: skip
    assert status.migration("20240206-001") is None
    assert status.evidence == (Evidence("20240301-001_c", "2026-11-23T15:00:00Z", "1"),)
    web = ServiceStatus("web", up=False, ready=False, pid=None, wanted_up=False, since=None, reason="")
    assert status.service("web") == web
    assert status.service("none") is None
    assert status.stale == (Stale(77, "tmux: server", "socket", "/srv/\udcff"),)
    assert status.lock == LockOwner(
        "anna@desk", "192.0.2.1", 12, "0d3c", "2026-11-23T14:00:00Z", "apply", "20240301-001_c", "confirmation"
    )
    assert (status.broken, status.defined) == ((1,), ("postgresql", "web"))
    assert status.missing == ("setfattr (package attr)",)


def test_the_fixture_comes_back_as_it_was() -> None:
    """What is written again is the runner's own document, with the one key that says it is known."""
    assert parse(TEXT).to_json() == document() | {"known": True}


@given(statuses)
def test_every_status_round_trips(status: Status) -> None:
    """Whatever a machine has, its JSON is read back as the same values."""
    assert parse(json.dumps(status.to_json())) == status


def test_a_long_past_is_told_shortly_and_read_whole() -> None:
    """400 layers: each generation has its stack, each migration its record, and the document stays small."""
    ids = [f"20240101-{n:03d}_add_postgresql" for n in range(400)]
    one = STATUS.migrations[0]
    status = replace(
        STATUS,
        stack=tuple(ids),
        generations=tuple(Generation(n + 1, tuple(ids[: n + 1]), base="a16d") for n in range(400)),
        migrations=tuple(replace(one, id=id, digest=f"{n:064x}", generation=n + 1) for n, id in enumerate(ids)),
    )
    text = json.dumps(status.to_json(), separators=(",", ":"))
    assert len(text) < 100_000
    assert parse(text) == status


@pytest.mark.parametrize("key", ["parent", "to", "drop", "below", "add"])
def test_a_short_form_is_as_strict(key: str) -> None:
    """A generation that is told by what it changed is not guessed at either."""
    error = refusal(replaced(["generations", 1], {"n": 2, key: 1.5}))
    assert str(error).startswith(f"status.generations[].{key} should be ")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("generations", {"generations": [{"n": 2, "parent": 1}]}),
        ("migrations", {"migrations": {"same": {}, "columns": [], "rows": [[1]]}}),
        ("migrations[].id", {"migrations": {"same": {}, "columns": ["digest"], "rows": [["aa"]]}}),
    ],
)
def test_a_past_that_makes_no_sense_is_refused(name: str, changed: dict[str, Any]) -> None:
    """Differences from what is not told, and tables that are none."""
    assert str(refusal(document() | changed)).startswith(f"status.{name} should be ")


@pytest.mark.parametrize("status", [UNKNOWN, Status(known=True)])
def test_no_status_and_no_runner_round_trip(status: Status) -> None:
    """Unknown stays unknown and bare stays bare, on the way through JSON."""
    assert parse(json.dumps(status.to_json())) == status


def test_unknown_is_not_absent() -> None:
    """A machine that has no runner is known; one that could not be asked is not, and they differ."""
    bare = parse('{"format": 1, "runner": null}')
    assert bare == Status(known=True)
    assert bare != UNKNOWN
    assert (bare.known, bare.prepared) == (True, False)
    assert (UNKNOWN.known, UNKNOWN.prepared) == (False, False)
    assert UNKNOWN.to_json() == {"known": False}
    assert bare.to_json() == {"known": True, "format": FORMAT, "runner": None}


@pytest.mark.parametrize("found", [0, FORMAT + 1, -1])
def test_another_format_is_refused(found: int) -> None:
    """A status of a later or earlier format is not guessed at, even where nothing else is in it."""
    for changed in (document() | {"format": found}, {"format": found, "runner": None}):
        error = refusal(changed)
        assert f"format {found}" in str(error)
        assert "update overlaymig" in error.hint


@pytest.mark.parametrize("text", ["", "{", "sh: not found", '{"format": 1}x', '{"format": 1', "\x00"])
def test_what_is_no_json_is_refused(text: str) -> None:
    """Noise and truncated output are no status."""
    assert "no JSON" in str(refusal(text))


@pytest.mark.parametrize("value", ["[]", "1", "null", '"text"'])
def test_what_is_no_object_is_refused(value: str) -> None:
    """Other JSON is no status either."""
    assert str(refusal(value)).startswith("status should be an object, but is ")


@pytest.mark.parametrize(("name", "path"), PLACES, ids=[".".join(map(str, path)) for _, path in PLACES])
def test_wrong_types_are_named_by_key(name: str, path: list[Any]) -> None:
    """A value of the wrong type is refused at its key, whichever key it is."""
    error = refusal(replaced(path, 1.5))
    assert str(error).startswith(f"{name} should be ")
    assert str(error).endswith("but is 1.5")
    assert "machine_prepared" in error.hint


@pytest.mark.parametrize("key", sorted(document().keys() - OPTIONAL))
def test_missing_keys_are_named(key: str) -> None:
    """What is left out is not taken for empty."""
    changed = document()
    del changed[key]
    assert str(refusal(changed)).startswith(f"status.{key} should be ")


def test_true_is_no_number_and_a_number_no_flag() -> None:
    """JSON's kinds are kept apart, where Python would mix them."""
    assert str(refusal(document() | {"generation": True})).startswith("status.generation should be a whole number")
    assert str(refusal(document() | {"booted": 1})).startswith("status.booted should be true or false")


def test_a_path_that_is_not_escaped_is_refused() -> None:
    """State paths are octal-escaped fields; anything else was not written by the runner."""
    error = refusal(replaced(["migrations", 0, "state"], ["/a b"]))
    assert str(error).startswith("status.migrations[].state[] should be an octal-escaped path")


@pytest.mark.parametrize(("exit", "why"), [(1, "1"), ("timeout", "timeout")])
def test_why_something_failed_is_a_number_or_a_word(exit: object, why: str) -> None:
    """The runner writes how a script ended, either way; here both are words."""
    assert parse(json.dumps(replaced(["evidence", 0, "exit"], exit))).evidence[0].why == why


def test_unknown_keys_are_left_alone() -> None:
    """A newer runner of the same format may say more."""
    assert parse(json.dumps(document() | {"more": 1})) == parse(TEXT)


def test_troubles_are_named() -> None:
    """What is down, halfway, fallen back or lacking is told; of a busy machine nothing is: it changes."""
    well = replace(STATUS, services=(), stale=(), lock=None, missing=())
    assert well.troubles == ()
    ill = replace(
        well,
        running=1,
        generations=(Generation(1, ()), Generation(2, (), instead_of=1, base="other")),
        migrations=(replace(STATUS.migrations[0], status="committed"),),
        services=(ServiceStatus("db", up=True, ready=False, pid=1, wanted_up=True, since=0, reason=""),),
        stale=(Stale(7, "tmux", "socket", "/srv/a b"), Stale(8, "sh", "directory", "/srv"), Stale(9, "x", "watch", "")),
        missing=("tar (package tar)",),
    )
    assert ill.troubles == (
        "not ready: db",
        "not finished: 20240101-001_a",
        "generation 1 runs instead of 2",
        "generation 2 is a fall-back from 1",
        "the base has changed since generation 2 was made",
        "holding what a switch took away, to be restarted: tmux (socket /srv/a\\040b), x (watch)",
        "lacks tar (package tar)",
    )
    assert replace(ill, lock=LockOwner("", "", 1, "", "", "", "")).troubles == ()
    assert UNKNOWN.troubles == ()


def test_a_table_for_people_names_what_lies_on_top_of_newer_ones(tmp_path: Path) -> None:
    """The others are named as they are."""
    lab = Lab.at(tmp_path)
    machine = Machine(place(lab, "lab-1"), "lab-1", "namespaces", "10.0.0.1", 1, tmp_path, tmp_path, tmp_path)
    one = replace(STATUS.migrations[0], active=True, status="applied", local=False)
    old, new = replace(one, id="20240101-001_old"), replace(one, id="20240102-001_new")
    for stack, told in (((old, new), (old.id, new.id)), ((new, old), (new.id, f"{old.id} (on top of {new.id})"))):
        status = replace(STATUS, stack=tuple(found.id for found in stack), migrations=stack)
        (row,) = rows([Answer(machine, "ready", status=status)])
        assert "\n".join(told) in row
