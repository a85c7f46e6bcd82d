from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.format import (
    FormatError,
    changes,
    exits,
    generation,
    ids,
    limits,
    lines,
    needs,
    octal,
    plan,
    readiness,
    record,
    rules,
    who,
)
from pyinfra_overlaymig.format.audit import Audit
from pyinfra_overlaymig.migration.folder import load_all
from pyinfra_overlaymig.migration.model import Migration

DEPLOYS = Path(__file__).parent.parent / "deploys" / "migrations"
SHA = hashlib.sha256(b"").hexdigest()
INSTALL = f"member 0755 {SHA} install.sh\n"
HEAD = "format 1\nid 20240206-001_add_postgresql\n"

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
words = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,10}", fullmatch=True)
some_ids = st.builds(
    lambda day, number, word: f"{day:%Y%m%d}-{number:03d}_{word}",
    st.dates(date(1000, 1, 1)),
    st.integers(0, 999),
    st.from_regex(r"[a-z0-9][a-z0-9_]{0,63}", fullmatch=True),
)
paths = names.filter(lambda name: rules.inside(name) and "/" not in name)
numbers = st.integers(0, 1 << 60)


@st.composite
def plans(draw: st.DrawFn) -> plan.Plan:
    id, *others = draw(st.lists(some_ids, min_size=1, max_size=5, unique=True))
    state = sorted(draw(st.sets(paths.map(lambda name: f"/srv/{name}"), max_size=3)), key=octal.escape_text)
    services = sorted(draw(st.sets(words, max_size=3)))
    files = sorted(draw(st.sets(paths.map(lambda name: f"files/{name}"), max_size=4)))
    settings = [
        plan.Setting(name, key, draw(names))
        for name in services
        for key in draw(st.sets(st.sampled_from(rules.SETTINGS)))
    ]
    members = [plan.Member("0755", SHA, "install.sh"), *(plan.Member("0644", SHA, path) for path in files[:2])]
    return plan.Plan(
        id=id,
        depends=tuple(sorted(others[:2])),
        conflicts=tuple(sorted(others[2:])),
        state=tuple(state),
        state_links=tuple(state[:1]),
        stop=tuple(services[:1]),
        services=tuple(services),
        settings=tuple(sorted(settings, key=lambda one: f"{one.service} {one.key} {octal.escape_text(one.value)}")),
        local=draw(st.booleans()),
        state_auto=draw(st.booleans()),
        members=tuple(sorted(members, key=lambda one: f"{one.mode} {one.sha256} {octal.escape_text(one.path)}")),
        links=tuple(
            sorted(
                (plan.Link(draw(names), path) for path in files[2:]),
                key=lambda one: f"{octal.escape_text(one.target)} {octal.escape_text(one.path)}",
            )
        ),
    )


@given(plans())
def test_plans_round_trip(one: plan.Plan) -> None:
    assert plan.parse(plan.text(one)) == one


@pytest.mark.parametrize("migration", load_all(DEPLOYS), ids=lambda one: one.id)
def test_what_the_operators_side_writes_is_what_is_read(migration: Migration) -> None:
    """Byte for byte: the digest of a migration is made of its plan."""
    packed = migration.plan.decode("ascii")
    assert plan.text(plan.parse(packed)) == packed
    written = migration.limits.decode("ascii")
    assert limits.text(limits.parse(written)) == written


@pytest.mark.parametrize("auto", ["", "state-auto yes\n"])
def test_a_plan_that_was_made_on_a_machine_is_read(auto: str) -> None:
    """As `install` and `drift adopt` of the runner in sh wrote it."""
    text = f"{HEAD}local yes\n{auto}{INSTALL}"
    one = plan.parse(text)
    assert (one.local, one.state_auto, one.members) == (True, bool(auto), (plan.Member("0755", SHA, "install.sh"),))
    assert plan.text(one) == text


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        HEAD,
        HEAD + INSTALL[:-1],
        HEAD.replace("1", "2", 1) + INSTALL,
        "format 1\nid 20240230-001_x\n" + INSTALL,
        HEAD + "unknown x\n" + INSTALL,
        HEAD + "depends 20240101-001_b\ndepends 20240101-001_a\n" + INSTALL,
        HEAD + "depends 20240101-001_b\ndepends 20240101-001_b\n" + INSTALL,
        HEAD + "depends 20240206-001_add_postgresql\n" + INSTALL,
        HEAD + "depends ../x\n" + INSTALL,
        HEAD + "state /data/system\n" + INSTALL,
        HEAD + "state /srv/../data/system\n" + INSTALL,
        HEAD + "state /srv/x/\n" + INSTALL,
        HEAD + "state /var/lib\n" + INSTALL,
        HEAD + "state /\n" + INSTALL,
        HEAD + "state srv\n" + INSTALL,
        HEAD + "state /srv\nstate /srv/x\n" + INSTALL,
        HEAD + "state /srv/\\057x\n" + INSTALL,
        HEAD + "state-link /srv/x\n" + INSTALL,
        HEAD + "service ../../evil\n" + INSTALL,
        HEAD + "stop ../../evil\n" + INSTALL,
        HEAD + "service-set web run x\n" + INSTALL,
        HEAD + "service web\nservice-set web start x\n" + INSTALL,
        HEAD + "service web\nservice-set web run a b\n" + INSTALL,
        HEAD + "local no\n" + INSTALL,
        HEAD + INSTALL + INSTALL,
        HEAD + INSTALL.replace("0755", "4755"),
        HEAD + INSTALL.replace(SHA, SHA.upper()[:-1] + "G"),
        HEAD + f"member 0644 {SHA} files/../../x\n" + INSTALL,
        HEAD + f"member 0644 {SHA} /etc/passwd\n" + INSTALL,
        HEAD + f"member 0644 {SHA} plan\n" + INSTALL,
        HEAD + f"member 0644 {SHA} files/a/b\n{INSTALL}link /etc files/a\n",
        HEAD + INSTALL + "link /etc files\n",
        HEAD + INSTALL + "link \\- files/x\n",
    ],
)
def test_a_plan_that_may_not_be_is_refused(wrong: str) -> None:
    """Whoever writes one by hand is root, and may be mistaken all the same."""
    with pytest.raises(FormatError):
        plan.parse(wrong)


limits_st = st.builds(
    limits.Limits,
    st.integers(1, rules.DAY),
    st.integers(1, rules.DAY),
    st.integers(0, 1000),
    st.sampled_from(rules.DRIFT),
    st.sampled_from(rules.AUDIT),
    st.booleans(),
    st.dictionaries(words, st.integers(1, rules.DAY), max_size=3),
    st.dictionaries(words, st.sampled_from(rules.RESTART), max_size=3),
)


@given(limits_st)
def test_limits_round_trip(one: limits.Limits) -> None:
    assert limits.parse(limits.text(one)) == one


def test_limits_that_are_not_given_have_their_defaults() -> None:
    """`install` and `drift adopt` of the runner in sh wrote no more than the first."""
    one = limits.parse("timeout 60\n")
    assert one == limits.Limits(timeout=60)
    assert (one.ready_timeout("web"), one.restart("web")) == (60, "changed")


@pytest.mark.parametrize(
    "wrong",
    [
        "timeout\n", "timeout 0\n", "timeout 86401\n", "timeout -1\n", "timeout 1 2\n", "timeout 1", "timeout ٣\n",
        "timeout 1\ntimeout 2\n", "verify-timeout 1s\n", "verify-retries 1001\n", "drift maybe\n", "audit \n",
        "snapshot true\n", "ready-timeout web\n", "ready-timeout ../x 5\n", "ready-timeout web 0\n",
        "ready-timeout web 5\nready-timeout web 5\n", "restart web often\n", "restart web\n", "colour red\n", "\n",
        "timeout " + "9" * 5000 + "\n",
    ],
)  # fmt: skip
def test_limits_that_may_not_be_are_refused(wrong: str) -> None:
    """Before anything is touched, not when the limit is needed."""
    with pytest.raises(FormatError):
        limits.parse(wrong)


audits = st.one_of(
    st.none(),
    st.sampled_from(["on", "no-auditd"]).map(Audit),
    st.tuples(st.just("on"), numbers, st.one_of(st.none(), numbers), numbers).map(Audit._make),
)


@given(
    st.builds(
        record.Record,
        digest=st.just(SHA),
        generation=numbers,
        base=words,
        below=st.just(SHA),
        layer=st.just(SHA),
        files=numbers,
        size=numbers,
        state=st.lists(names.map(lambda name: f"/srv/{name}"), max_size=3).map(tuple),
        services=st.lists(words, max_size=3).map(tuple),
        audit=audits,
        more=st.lists(st.tuples(st.sampled_from(["later", "squashed"]), words), max_size=2).map(tuple),
    )
)
def test_records_round_trip(one: record.Record) -> None:
    """With the keys that a later version has, too."""
    assert record.parse(record.text(one)) == one


SEALED = f"""\
format 1
digest {SHA}
generation 3
base debian-12
below {SHA}
layer {SHA}
audit no-auditd
files 7
size 4096
state /srv/a\\040b
service web
"""
EXPLAINED = SEALED.replace("audit no-auditd\n", "") + "audit on\nevents 12\nlost unknown\nunexplained 0\n"


@pytest.mark.parametrize("text", [SEALED, EXPLAINED])
def test_records_are_written_as_they_always_were(text: str) -> None:
    """What audit saw is known last, and stands last."""
    assert record.text(record.parse(text)) == text


def test_records_of_found_state_are_read() -> None:
    """The runner in sh wrote it as in changes.list: with bytes that are no ASCII as they are."""
    assert record.parse(SEALED.replace("a\\040b", "ü\\040b")).state == ("/srv/ü b",)


@pytest.mark.parametrize(
    "wrong",
    ["", SEALED[:-1], SEALED.replace("format 1", "format 2"), SEALED + "size 5\n", SEALED.replace("4096", "many")],
)
def test_a_record_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(FormatError):
        record.parse(wrong)


@given(
    st.builds(
        generation.Generation,
        st.just("2024-02-06T10:00:00Z"),
        words,
        st.one_of(st.none(), numbers),
        st.lists(some_ids, unique=True, max_size=4).map(tuple),
    )
)
def test_generations_round_trip(one: generation.Generation) -> None:
    assert generation.parse(generation.text(one)) == one


def test_generations_are_written_as_they_always_were() -> None:
    one = generation.Generation("2024-02-06T10:00:00Z", "debian", 4, ("20240206-001_a",))
    assert generation.text(one) == (
        "format 1\nmade 2024-02-06T10:00:00Z\nbase debian\ninstead-of 4\nlayer 20240206-001_a\n"
    )


@pytest.mark.parametrize(
    "wrong", ["", "format 1\n", "format 1\nmade x\nlayer ../x\n", "format 1\nmade x\nlayer 20240206-0"]
)
def test_a_generation_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(FormatError):
        generation.parse(wrong)


@pytest.mark.parametrize(
    "line",
    [
        f"A f 644 0 0 12 {SHA} - etc/x",
        f"C f 644 0 0 12 {SHA} user.a=0x31,security.capability=0x01 etc/a\\040b == etc/x",
        "A l 777 0 0 0 - - etc/l -> ../x\\040y",
        "D - - - - - - - etc/gone",
    ],
)
def test_changes_round_trip(line: str) -> None:
    assert changes.parse(line).line() == line
    assert changes.text(changes.parse_all(f"{line}\n{line}\n")) == f"{line}\n{line}\n"


def test_a_deletion_is_written_as_it_always_was() -> None:
    assert changes.deleted("etc/gone").line() == "D - - - - - - - etc/gone"


@pytest.mark.parametrize(
    "wrong", ["", "A f 644", "X f 644 0 0 12 - - x", "A f 644 0 0 12 - - x y", "A l 7 0 0 0 - - x => y"]
)
def test_a_change_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(FormatError):
        changes.parse(wrong)


WHO = """\
process 1 0 100 /run/migration/install.sh /bin/sh /run/migration/install.sh
process 2 1 101 /usr/bin/touch touch a\\040b
process 3 2 102 -
path 2 - etc/a\\040b
unexplained change times etc/old
path 2 libc6 etc/x
also transient 2 etc/tmp
unexplained record made etc/y
"""


def test_who_round_trips_in_its_order() -> None:
    assert who.text(who.parse(WHO)) == WHO


@pytest.mark.parametrize(
    "wrong", ["x", "process 1", "process a 0 1 x", "path 1 x", "also x y z", "unexplained x y z", WHO[:-1]]
)
def test_a_who_list_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(FormatError):
        who.parse(wrong if wrong == WHO[:-1] else f"{wrong}\n")


@given(st.binary(max_size=40))
def test_both_alphabets_carry_any_name(name: bytes) -> None:
    """And neither leaves a blank or a newline in it."""
    text = name.decode("utf-8", "surrogateescape")
    field = octal.escape_path(text)
    assert octal.unescape_path(field) == text
    assert not {" ", "\t", "\n"}.intersection(field)
    assert octal.unescape(octal.escape(name)) == name
    assert not name or octal.unescape_path(octal.escape(name)) == text


@given(st.integers(0, 10001), st.integers(0, 13), st.integers(0, 32))
def test_ids_have_dates_of_the_calendar(year: int, month: int, day: int) -> None:
    """As datetime knows it, which is too slow to load for asking."""
    try:
        real = len(f"{year:04d}") == 4 and bool(date(year, month, day))
    except ValueError:
        real = False
    assert ids.valid_id(f"{year:04d}{month:02d}{day:02d}-001_x") == real


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("20240206-001_x", True),
        ("check", True),
        ("", False),
        ("../x", False),
        ("-x", False),
        ("x\n", False),
        ("x" * 78, False),
    ],
)
def test_names_of_captures(name: str, fine: bool) -> None:
    assert ids.capture_name(name) == fine


def test_lines_are_read() -> None:
    text = "a 1\nb 2 3\na 4\nword\n"
    assert list(lines.pairs(text)) == [("a", "1"), ("b", "2 3"), ("a", "4"), ("word", "")]
    assert lines.values(text, "a") == ["1", "4"]
    assert (lines.value(text, "b"), lines.value(text, "c", "none")) == ("2 3", "none")


def test_every_exit_means_something() -> None:
    assert "untouched" in exits.meaning(exits.REFUSED)
    assert "exit 77 is none of system-migrate's" in exits.meaning(77)


def test_what_a_base_lacks_is_named(tmp_path: Path) -> None:
    """Looked for in the root that is asked of, by PATH's directories; with the package that brings it."""
    assert needs.packages([str(need) for need in needs.missing_programs(str(tmp_path))]) == ["python3", "s6"]
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3").symlink_to("/nowhere/python3.99")
    assert needs.PYTHON not in needs.missing_programs(str(tmp_path))
    assert needs.missing_python() == ""
    assert needs.packages([needs.OVERLAY]) == []


def test_formats_are_cheap_to_load() -> None:
    """Every verb pays for it on every machine, and whoever reads the status."""
    heavy = {"dataclasses", "pathlib", "datetime", "inspect", "subprocess", "argparse", "pyinfra", "yaml"}
    modules = "changes exits generation ids limits lines needs octal paths plan readiness record rules who".split()  # noqa: SIM905
    load = f"from pyinfra_overlaymig.format import {', '.join(modules)}"
    code = f"import sys\n{load}\nprint(sorted({heavy!r} & sys.modules.keys()))"
    top = Path(__file__).parent.parent
    program = [sys.executable, "-S", "-B", "-c", code]
    found = subprocess.run(program, capture_output=True, text=True, check=True, cwd=top)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    ("tells", "begins", "seconds"), [(True, False, 0), (True, True, 3), (False, False, 3), (False, True, 3)]
)
def test_what_tells_nothing_has_to_live_longer(tells: bool, begins: bool, seconds: int) -> None:
    """One rule, for the runner, for `s6_service` and for what is rendered."""
    assert readiness.settles(tells=tells, begins=begins) == seconds
    assert readiness.is_ready(up=True, told=True, tells=tells)
    assert readiness.is_ready(up=True, told=False, tells=tells) != tells
    assert not readiness.is_ready(up=False, told=True, tells=tells)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ((), "20260101-001_made"),
        (("20260101-007_x", "20251231-999_x"), "20260101-008_made"),
        (("20260101-999_x",), "20260102-001_made"),
        (("20260228-999_x", "20260101-999_x"), "20260301-001_made"),
        (("20271231-998_x",), "20271231-999_made"),
        (("20271231-999_x", "20999999-001_is_no_id", "metadata.json"), "20280101-001_made"),
    ],
)
def test_the_next_id_is_free_and_one(taken: tuple[str, ...], expected: str) -> None:
    """After 999 comes the next day; what is no id does not count."""
    found = ids.next_id("made", taken, 1767225600)
    assert found == expected
    assert ids.valid_id(found)


@pytest.mark.parametrize(("label", "taken"), [("x", ("99991231-999_x",)), ("///", ()), ("", ())])
def test_where_there_is_no_next_id_it_is_said(label: str, taken: tuple[str, ...]) -> None:
    """Instead of one that nothing could ever read again."""
    with pytest.raises(FormatError, match="there is no id"):
        ids.next_id(label, taken, 1767225600)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("20240230-001_x", "2024-02-30 is no date"),
        ("20230229-001_x", "2023-02-29 is no date"),
        ("00000101-001_x", "0000-01-01 is no date"),
        ("20240206-1000_x", "1000 has not three digits"),
        ("20240206-1_x", "1 has not three digits"),
        ("20240206-001_Add", "its label"),
        ("20240206-001_", "its label"),
        ("20240206-001_x\n", "its label"),
        ("2024-02-06_x", "YYYYMMDD-NNN_label"),
        ("20240206-001_x", ""),
    ],
)
def test_it_is_said_why_something_is_no_id(text: str, why: str) -> None:
    """One function for folders, manifests and plans."""
    assert why in ids.why_no_id(text)
    assert bool(ids.why_no_id(text)) is bool(why)


A, B, C, D = "20240101-001_a", "20240102-001_b", "20240103-001_c", "20240104-001_d"


@pytest.mark.parametrize(
    ("id", "stacks", "expected"),
    [
        (B, {1: (A,), 2: (A, B), 3: (A, B, C), 4: (A,)}, ((2, 3), (B, C))),
        (C, {1: (A,), 2: (A, B), 3: (A, B, C), 4: (A,)}, ((3,), (C,))),
        (A, {1: (A,), 2: (A, B), 3: (), 4: (D,)}, ((1, 2), (A, B))),
        (B, {2: (A, B), 4: (D,)}, ((2,), (B,))),
        (B, {4: (D,)}, ((), (B,))),
        (A, {1: (A,), 2: (A, D), 3: (D,)}, ((1, 2), (A,))),
    ],
)
def test_what_goes_with_a_layer(id: str, stacks: Any, expected: Any) -> None:
    """The generations that have it, and what lies on it; nothing that is below it, or that a generation keeps."""
    assert generation.going(id, stacks) == expected


def test_content_is_the_plan_but_for_the_id() -> None:
    """Two folders that differ in their names alone have one; what is in them, or what they need, makes it another."""
    one = plan.Plan(A, members=(plan.Member("0755", "0" * 64, "install.sh"),))
    words = [plan.content(plan.text(each)) for each in (one, one._replace(id=B), one._replace(depends=(C,)))]
    assert words[0] == words[1] != words[2]
